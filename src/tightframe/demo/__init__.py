"""The demonstration: a small network trained on real data with any head, measured along the way.

`demo.settings`, `demo.heads`: the settings and their choices, without torch; `demo.run.run` trains.
"""
