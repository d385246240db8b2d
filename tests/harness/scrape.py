"""What a scrape of docxy's metrics says."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Values = dict[str, float]


def values(text: str) -> Values:
    """By name and the values of labels, in the order of the labels' names; empty ones are left out."""
    return {
        " ".join([sample.name, *(value for _, value in sorted(sample.labels.items()) if value)]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
