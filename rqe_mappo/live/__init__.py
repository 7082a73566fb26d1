"""A local web page that shows policies while they drive: `rqe-play`, see docs/play.md.

A worker process holds the simulation (`scene_env`). One thread steps it with the policies (`session`) and computes
what the page shows: the policies' probabilities and values (`inspection`), and statistics of the episodes so far
(`running_statistics`). A web server sends this to every tab (`server`) and passes on their commands (`messages`).
"""
