"""Cases: subprotocols, which a client that offers some insists on.

Not here: what an embedded application chooses (tests/server).
"""

from harness import Daemon, case, expect, run


async def chosen(daemon, offered):
    """What a `websockets` client that offers these is given."""
    async with daemon.connect(subprotocols=offered) as client:
        await client.send("hello")
        expect(await client.recv(), '{"count": 1}', "reply")
        return client.subprotocol


@case
async def the_first_of_the_list_that_is_offered():
    async with Daemon("--ws-subprotocols", "chat.v2,chat") as daemon:
        for offered, wanted in (
            (["chat"], "chat"),
            (["chat", "chat.v2"], "chat.v2"),
            (["mqtt", "chat"], "chat"),
            (["mqtt"], None),
            (None, None),
        ):
            expect(await chosen(daemon, offered), wanted, f"subprotocol of {offered}")


@case
async def any_is_the_first_that_is_offered():
    async with Daemon("--ws-subprotocols", "any", "--workers", "3") as daemon:
        for offered, wanted in ((["mqtt", "chat"], "mqtt"), (["x"], "x"), (None, None)):
            expect(await chosen(daemon, offered), wanted, f"subprotocol of {offered}")


@case
async def without_the_option_none_is_agreed_to():
    async with Daemon() as daemon:
        expect(await chosen(daemon, ["chat"]), None, "subprotocol")


run()
