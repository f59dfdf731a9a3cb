"""The main job: observe, search, certify, report.  Reaches plug-ins by name only."""
