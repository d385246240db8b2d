"""Makes `twistd docxy` known."""

from twisted.application.service import ServiceMaker

docxy = ServiceMaker("docxy", "docxy.tap", "A mirror of container registries.", "docxy")
