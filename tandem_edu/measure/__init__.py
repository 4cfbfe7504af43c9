"""Measurements: quality, decoding with several drafters, calibration, intervals, time and its models."""

from tandem_edu.measure.calibration import Calibration, calibration, verified_drafts
from tandem_edu.measure.decoding import Comparison, Run, compare
from tandem_edu.measure.intervals import Interval, share_interval, spread
from tandem_edu.measure.quality import Quality, qualities, quality
from tandem_edu.measure.roofline import PRESETS, Hardware, read_time, ridge
from tandem_edu.measure.speedup import tokens_per_call, tokens_per_call_iid, wall_clock_factor
from tandem_edu.measure.steps import draft_steps, read_steps
from tandem_edu.measure.thresholds import Threshold, sweep_thresholds
from tandem_edu.measure.timeline import Span, timeline
from tandem_edu.measure.timing import Work, timed
