"""Panels: controls, and a picture that follows them. The only place that imports ipywidgets."""

from tandem_edu.show.panels.acceptance import acceptance_panel as acceptance_panel
from tandem_edu.show.panels.acceptance import acceptance_view as acceptance_view
from tandem_edu.show.panels.attention import attention_panel as attention_panel
from tandem_edu.show.panels.attention import attention_view as attention_view
from tandem_edu.show.panels.core import panel as panel
from tandem_edu.show.panels.cycle import cycle_panel as cycle_panel
from tandem_edu.show.panels.cycle import cycle_view as cycle_view
from tandem_edu.show.panels.dashboard import training_dashboard as training_dashboard
from tandem_edu.show.panels.gamma import gamma_panel as gamma_panel
from tandem_edu.show.panels.gamma import gamma_view as gamma_view
from tandem_edu.show.panels.ideas import mask_panel as mask_panel
from tandem_edu.show.panels.ideas import measured_speedups as measured_speedups
from tandem_edu.show.panels.ideas import roofline_panel as roofline_panel
from tandem_edu.show.panels.ideas import speedup_panel as speedup_panel
from tandem_edu.show.panels.router import router_panel as router_panel
from tandem_edu.show.panels.router import router_view as router_view
from tandem_edu.show.panels.timeline import timeline_panel as timeline_panel
from tandem_edu.show.panels.timeline import timeline_view as timeline_view
