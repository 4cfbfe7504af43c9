"""Floor 5: what people look at. Pictures, tables, token views, reports; panels are in `show.panels`.

Drawing never computes: everything here takes what `tandem_edu.measure` or a `Trace` holds.
"""

from tandem_edu.show.adaptive import thresholds as thresholds
from tandem_edu.show.attention import attention_head as attention_head
from tandem_edu.show.attention import primary_shares as primary_shares
from tandem_edu.show.distributions import acceptance_prob as acceptance_prob
from tandem_edu.show.distributions import frequencies as frequencies
from tandem_edu.show.ideas import block_mask as block_mask
from tandem_edu.show.ideas import roofline as roofline
from tandem_edu.show.ideas import speedup_curve as speedup_curve
from tandem_edu.show.ideas import timelines as timelines
from tandem_edu.show.picture import Picture as Picture
from tandem_edu.show.plots import acceptance_by_position as acceptance_by_position
from tandem_edu.show.plots import loss_curves as loss_curves
from tandem_edu.show.plots import quality_against_time as quality_against_time
from tandem_edu.show.plots import reliability as reliability
from tandem_edu.show.plots import speedups as speedups
from tandem_edu.show.plots import time_against_width as time_against_width
from tandem_edu.show.plots import tokens_per_call as tokens_per_call
from tandem_edu.show.report import page as page
from tandem_edu.show.report import paragraph as paragraph
from tandem_edu.show.tables import decoding_rows as decoding_rows
from tandem_edu.show.tables import html_table as html_table
from tandem_edu.show.tables import text_table as text_table
from tandem_edu.show.tokens import legend as legend
from tandem_edu.show.tokens import terminal_view as terminal_view
from tandem_edu.show.tokens import token_view as token_view
