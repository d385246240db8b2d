"""Bytes that outlive a node: an object store behind the caches of many docxys."""
