"""Floor 6: the demo, `tandem-edu demo`. It only strings together what the rooms below offer."""

from tandem_edu.demo.run import demo as demo
