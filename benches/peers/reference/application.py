"""The reference stack: the Django Channels consumer that revolve's protocol comes from.

It is what the load bench measures revolve against; it is not a service to deploy. One file holds
the settings, the routing and the consumer. The bench installs `requirements.txt` into a virtual
environment under `target/` and starts it with `uvicorn application:application`.
"""

import json
import os
from urllib.parse import parse_qs

import django
from django.conf import settings

settings.configure(
    DEBUG=False,
    SECRET_KEY="for-the-bench-only",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["channels"],
    LOGGING_CONFIG=None,
)
django.setup()

# These read the settings, so they come after them.
from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402


class ChatConsumer(AsyncWebsocketConsumer):
    """Counts the messages of a session, which it keeps in this process's memory."""

    session_store = {}

    async def connect(self):
        query = parse_qs(self.scope["query_string"].decode())
        self.session_id = query.get("session_id", [None])[0]
        self.counter = self.session_store.get(self.session_id, 0)
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        self.counter += 1
        await self.send(text_data=json.dumps({"count": self.counter}))

    async def disconnect(self, code):
        if self.session_id is not None:
            self.session_store[self.session_id] = self.counter


class EchoConsumer(AsyncWebsocketConsumer):
    """Sends every message back unchanged."""

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data, bytes_data=bytes_data)


consumer = EchoConsumer if os.environ.get("REFERENCE_MODE") == "echo" else ChatConsumer
application = ProtocolTypeRouter(
    {"websocket": URLRouter([path("ws/chat/", consumer.as_asgi())])}
)
