"""Pictures, tables and token views of results of `tandem_edu.measure`; panels are in `show.panels`."""

from tandem_edu.show.ideas import acceptance_prob, block_mask, roofline, sketch_mask, speedup_curve, timelines
from tandem_edu.show.picture import Picture, html_table
from tandem_edu.show.plots import (
    acceptance_by_position,
    decoding_rows,
    frequencies,
    loss_curves,
    quality_against_time,
    reliability,
    speedups,
    thresholds,
    time_against_width,
    tokens_per_call,
)
from tandem_edu.show.tokens import legend, terminal_view, token_view
