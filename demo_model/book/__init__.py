"""The picture-book world of the demo model: scenes, networks, training, judging."""
