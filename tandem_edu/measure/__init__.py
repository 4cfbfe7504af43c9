"""Measurements: quality, decoding with several drafters, calibration, intervals, time and its models."""

from tandem_edu.measure.calibration import Calibration, calibration, verified_drafts
from tandem_edu.measure.decoding import Comparison, Run, Threshold, compare, sweep_thresholds
from tandem_edu.measure.roofline import PRESETS, Hardware, read_time, ridge
from tandem_edu.measure.speedup import Span, timeline, tokens_per_call, tokens_per_call_iid, wall_clock_factor
from tandem_edu.measure.steps import draft_steps, read_steps
from tandem_edu.measure.timing import Interval, Work, share_interval, spread, timed
from tandem_edu.train.evaluation import Quality, qualities, quality
