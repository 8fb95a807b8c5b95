"""Reads /metrics through prometheus_client, the parser that real scrapers use.

Knows no metric by name; metrics.py has the cases about them.

Called by the cases that watch a number move.
"""

import asyncio
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


def _text(port):
    # No proxies: the environment's are not for our own machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        return response.headers["Content-Type"], response.read().decode()


class Scrape:
    """What one scrape said."""

    def __init__(self, content_type, text):
        self.content_type = content_type
        self.text = text
        self.families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def names(self):
        return {sample.name for sample in self.samples}

    def value(self, name, **labels):
        """The sum of a name's samples that carry these labels; None if there is no sample."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None


async def scrape(daemon):
    return Scrape(*await asyncio.to_thread(_text, daemon.port))
