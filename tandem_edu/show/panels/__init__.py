"""Panels: controls, and a picture that follows them. The only place that imports ipywidgets."""

from tandem_edu.show.panels.core import panel as panel
from tandem_edu.show.panels.gamma import gamma_panel as gamma_panel
from tandem_edu.show.panels.gamma import gamma_view as gamma_view
from tandem_edu.show.panels.ideas import mask_panel as mask_panel
from tandem_edu.show.panels.ideas import roofline_panel as roofline_panel
from tandem_edu.show.panels.ideas import speedup_panel as speedup_panel
