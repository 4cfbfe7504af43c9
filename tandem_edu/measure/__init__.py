"""Floor 4: measures. Quality of a model, what acceptance is worth, drafters side by side, time."""

from tandem_edu.measure.attention import attention_maps as attention_maps
from tandem_edu.measure.attention import primary_share as primary_share
from tandem_edu.measure.bootstrap import Interval as Interval
from tandem_edu.measure.bootstrap import bootstrap as bootstrap
from tandem_edu.measure.calibration import Calibration as Calibration
from tandem_edu.measure.calibration import calibration as calibration
from tandem_edu.measure.calibration import judged_drafts as judged_drafts
from tandem_edu.measure.decoding import Comparison as Comparison
from tandem_edu.measure.decoding import Run as Run
from tandem_edu.measure.decoding import compare as compare
from tandem_edu.measure.looping import looping as looping
from tandem_edu.measure.quality import Quality as Quality
from tandem_edu.measure.quality import quality as quality
from tandem_edu.measure.speedup import tokens_per_call as tokens_per_call
from tandem_edu.measure.speedup import tokens_per_call_iid as tokens_per_call_iid
from tandem_edu.measure.speedup import wall_clock_factor as wall_clock_factor
from tandem_edu.measure.thresholds import Threshold as Threshold
from tandem_edu.measure.thresholds import sweep_thresholds as sweep_thresholds
from tandem_edu.measure.timing import interleaved as interleaved
from tandem_edu.measure.timing import machine as machine
from tandem_edu.measure.timing import spread as spread
