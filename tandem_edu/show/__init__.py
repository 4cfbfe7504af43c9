"""Pictures, tables and token views; panels are in `show.panels`.

Drawing does not compute: everything here takes results of `tandem_edu.measure` or a `Trace`.
"""

from tandem_edu.show.distributions import acceptance_prob, frequencies
from tandem_edu.show.ideas import block_mask, roofline, speedup_curve, timelines
from tandem_edu.show.picture import Picture, html_table
from tandem_edu.show.plots import (
    acceptance_by_position,
    decoding_rows,
    loss_curves,
    quality_against_time,
    reliability,
    speedups,
    thresholds,
    time_against_width,
    tokens_per_call,
)
from tandem_edu.show.tokens import legend, terminal_view, token_view
