"""Networks of other packages as backbones: ``backbone.kind`` is then ``PACKAGE:NAME``."""
