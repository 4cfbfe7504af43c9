"""Panels: controls and a picture that follows them. Only this folder imports ipywidgets."""

from tandem_edu.show.panels.core import TrainingDashboard, panel
from tandem_edu.show.panels.cycle import cycle_panel, cycle_view, timeline_panel, timeline_view
from tandem_edu.show.panels.decoded import acceptance_view, gamma_panel, gamma_view, router_panel, router_view
from tandem_edu.show.panels.ideas import mask_panel, roofline_panel, sketch_panel, speedup_panel
