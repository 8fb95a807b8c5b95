"""The worker for examples/tasks.rs, in a folder of its own or in this one:

    pip install "celery[redis]"
    celery -A worker worker
"""

import os
import time

from celery import Celery

BROKER = os.environ.get("BROKER", "redis://127.0.0.1:6379/0")
app = Celery("worker", broker=BROKER, backend=BROKER)


@app.task(name="reports.render")
def render(title, pages):
    if pages > 1000:
        raise ValueError("no report is that long")
    time.sleep(pages / 100)
    return {"title": title, "pages": pages}
