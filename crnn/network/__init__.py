"""The network: its configuration, the front, the recurrent layer, pooling over time."""
