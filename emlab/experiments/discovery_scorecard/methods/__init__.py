"""emlab's own methods of discovery, each under the decorator `emlab.experiments.discovery_scorecard.method.method`."""
