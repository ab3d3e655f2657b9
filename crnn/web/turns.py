"""Who is answered next: a queue in which visitors take turns, none fills it, and each is told his place and time."""

import json
import re
from asyncio import Queue as Messages
from collections import ChainMap, Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from types import SimpleNamespace

from fastapi import HTTPException, Request
from gradio import Blocks, Error
from gradio.block_function import BlockFunction
from gradio.context import LocalContext
from gradio.data_classes import PredictBodyInternal
from gradio.queueing import Event, ProcessTime, Queue
from gradio.server_messages import EstimationMessage, EventMessage, ProcessCompletedMessage
from gradio.state_holder import SessionState, StateHolder
from gradio.utils import error_payload
from starlette._utils import get_route_path

from crnn.web.gate import Application, Message, Receive, Send

MOST_WAITING = 400  # questions of all visitors
MOST_OF_ONE = 32  # unfinished questions from one address: a household or a class may share it
SHARED_PLACES = 4  # for one kind of work; of so many or more, one address does not get the last
MOST_OF_NAME = 64  # characters that a session calls itself by; Gradio's have 36 at most
MOST_UNREAD = 2_000  # messages that wait for a session to ask for them
MOST_SESSIONS = 2_000  # of which the queue remembers what they asked
TOLD_EVERY_SECONDS = 1.0
MOST_SECONDS = 3_600.0  # that an answer takes
CALL = re.compile(r"/gradio_api/call/.+/(\w+)")  # where an answer is had without the stream of a session
HEARTBEAT = b"event: heartbeat\n"


def is_awaited() -> bool:
    """Whether whoever asked the question that this thread answers is there still, as far as is known."""
    blocks, number = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    event = blocks and number and blocks._queue.event_ids_to_events.get(number)
    return not event or event.alive


def check_name(session: str | None) -> None:
    """Raises HTTPException if a session calls itself by more than may be kept of it."""
    if len(session or "") > MOST_OF_NAME:
        raise HTTPException(422, f"A session_hash has {MOST_OF_NAME} characters at most.")


class Session(SessionState):
    """What Gradio keeps of a session, but for what its components show: megabytes of tables, figures and overlays.

    Only links to a page as somebody has left it would ask for that, and components that read their own properties.
    """

    def __init__(self, blocks: Blocks) -> None:
        super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks=()))
        self._changed: dict[int, object] = {}
        self.blocks_config.blocks = ChainMap(self._changed, blocks.default_config.blocks)

    def __setitem__(self, key: int, value: object) -> None:
        """A state, or a component as an update leaves it, which is read at once: the next one takes its place."""
        self._changed.clear()
        super().__setitem__(key, value)
        self.config_values.clear()

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: object) -> None:
        pass


class Sessions(StateHolder):
    """What Gradio keeps of sessions, but for what it does where there are too many: it would forget the oldest.

    Whoever makes many would make it forget those of all others. So one of the address that has most goes: the oldest of
    those that have no songs, as all may come from the address of a proxy, or else the oldest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.visitors: dict[str, str] = {}  # by session; nobody has those that only asked what there is to ask

    def __getitem__(self, session_id: str) -> SessionState:
        check_name(session_id)
        if session_id not in self.session_data:
            self.session_data[session_id] = Session(self.blocks)
        return super().__getitem__(session_id)

    def update(self, session_id: str) -> None:
        """A session has asked; now it is the newest."""
        with self.lock:
            if session_id in self.session_data:
                self.session_data.move_to_end(session_id)
            if len(self.session_data) > self.capacity:
                n_of = Counter(map(self.visitors.get, self.session_data))
                *others, _ = self.session_data
                self.forget(max(others, key=lambda name: (n_of[self.visitors.get(name)], not self._has_songs(name))))

    def _has_songs(self, session_id: str) -> bool:
        """Whether there is anything in it but a Visit without rows."""
        return any(getattr(value, "rows", value) for value in self.session_data[session_id].state_data.values())

    def forget(self, session_id: str) -> None:
        """Keep nothing of a session."""
        for kept in (self.session_data, self.time_last_used, self.visitors):
            kept.pop(session_id, None)


class Durations(ProcessTime):
    """How long answers took, but for those in which the clock was set: Gradio takes the time of day."""

    def add(self, time: float) -> None:
        """One more, in seconds."""
        if 0 <= time < MOST_SECONDS:
            super().add(time)


class FairQueue(Queue):
    """Gradio's queue, but for what it does with many visitors.

    Whoever has asked least waits least: the first questions of all come before the second ones. What is too much is
    answered at once with a sentence, in the way of any other error, so that every client shows it. Gradio's own queue
    would forget who waits once 2,000 other sessions have come, and look through its last 10,000 answers for a page that
    is closed here after each.
    """

    @classmethod
    def of(cls, blocks: Blocks) -> "FairQueue":
        """The queue for a page that has one already."""
        return cls(
            live_updates=False,  # which would tell all who wait of every answer
            concurrency_count=blocks.max_threads,
            update_intervals=TOLD_EVERY_SECONDS,
            max_size=None,
            blocks=blocks,
        )

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.ANALYTICS_MAX_EVENTS = 1
        self.process_time_per_fn = defaultdict(Durations)
        self.pending_messages_per_session = {}  # in which no session makes another one be forgotten

    def compute_analytics_summary(self, _: list) -> dict:
        """Nothing: nobody may see it."""
        return self.cached_event_analytics_summary

    async def push(self, body: PredictBodyInternal, request: Request, username: str | None) -> tuple[bool, object, str]:
        """Take a question, or answer at once why not; as in Gradio, whether it is taken, its number and how it went."""
        check_name(body.session_hash)
        sentence = self._refusal(body, request)
        self._forget_idle_sessions()
        self._keep_states(body.session_hash)
        unread = self.pending_messages_per_session.get(body.session_hash)
        is_full = len(self.pending_messages_per_session) >= MOST_SESSIONS
        if (unread and unread.qsize() > MOST_UNREAD) or (sentence and is_full):
            raise HTTPException(429, sentence or "Read the answers that you have before you ask again.")
        if sentence:
            return True, await self._refuse(body, request, username, sentence), "success"
        pushed = await super().push(body, request, username)
        if body.session_hash in self.blocks.state_holder:
            self.blocks.state_holder.visitors[body.session_hash] = visitor_of(request)
        if event := self.event_ids_to_events.get(pushed[1] if pushed[0] else None):
            self._take_turns(event.concurrency_id)
        return pushed

    async def process_events(self, events: list[Event], batch: bool, begin_time: float, fn: BlockFunction) -> None:
        """Have questions answered; of sessions that asked through the API alone nothing is kept.

        Gradio makes one for each call, and would forget those of the page for them.
        """
        await super().process_events(events, batch, begin_time, fn)
        for session in {event.session_hash for event in events} if fn.api_visibility == "public" else ():
            state = self.blocks.state_holder.session_data.get(session)
            if state and not state.state_data:
                self.blocks.state_holder.forget(session)

    def get_events(self) -> tuple[list[Event], bool, str] | None:
        """Whom to answer next, but for addresses that have all places but one: that is for others."""
        held_back = {}
        for number, queue in self.event_queue_per_concurrency_id.items():
            n_places = queue.concurrency_limit or 0
            if queue.queue and n_places >= SHARED_PLACES and queue.current_concurrency == n_places - 1:
                visitors = {visitor_of(event.request) for event in self._running_of(number)}
                if len(visitors) == 1:
                    held_back[number] = [*queue.queue]
                    queue.queue[:] = [event for event in queue.queue if visitor_of(event.request) not in visitors]
        chosen = super().get_events()
        for number, events in held_back.items():
            waiting = self.event_queue_per_concurrency_id[number].queue
            waiting[:] = [event for event in events if not chosen or event not in chosen[0]]
        return chosen

    def send_message(self, event: Event, event_message: EventMessage) -> None:
        """Tell the session of a question."""
        if isinstance(event_message, EstimationMessage):
            event.estimation = event_message
        super().send_message(event, event_message)

    def place_of(self, number: str) -> dict[str, float | None] | None:
        """How many questions come before one, how many wait for the same, the seconds until its answer, if known."""
        waiting = [event for queue in self.event_queue_per_concurrency_id.values() for event in queue.queue]
        estimation = next((getattr(event, "estimation", None) for event in waiting if event._id == number), None)
        return estimation and estimation.model_dump(include={"rank", "queue_size", "rank_eta"})

    def unfinished(self) -> Iterator[Event]:
        """The questions that wait or are being answered."""
        for queue in self.event_queue_per_concurrency_id.values():
            yield from queue.queue
        yield from self._running()

    def asked_about(self, path: str) -> bool:
        """Whether an unfinished question has this file."""
        return any(event.data and path in paths_in(event.data.data) for event in [*self.unfinished()])

    def _running(self) -> Iterator[Event]:
        for job in self.active_jobs:
            yield from job or ()

    def _running_of(self, concurrency_id: str) -> Iterator[Event]:
        return (event for event in self._running() if event.concurrency_id == concurrency_id)

    def _keep_states(self, session: str | None) -> None:
        """Count the hour after which Gradio forgets what a page knows from its last question.

        It counts from when each state was set, once the page's connection broke, be it for a moment.
        """
        if state := self.blocks.state_holder.session_data.get(session):
            now = datetime.now()
            state._state_ttl = {key: (seconds, now) for key, (seconds, _) in state._state_ttl.items()}

    def _refusal(self, body: PredictBodyInternal, request: Request) -> str | None:
        visitor = visitor_of(request)
        if sum(visitor_of(event.request) == visitor for event in self.unfinished()) >= MOST_OF_ONE:
            return f"{MOST_OF_ONE} questions from your address wait here already: ask again when one is answered."
        if len(self) >= MOST_WAITING:
            return f"{len(self)} questions wait here already{self._time_of(body)}: try again then."
        return None

    def _time_of(self, body: PredictBodyInternal) -> str:
        """How long those who wait for the same will take, if that is known already."""
        fn = self.blocks.fns.get(body.fn_index)
        queue = fn and self.event_queue_per_concurrency_id.get(fn.concurrency_id)
        if not queue or fn not in self.process_time_per_fn or not queue.concurrency_limit:
            return ""
        seconds = self.process_time_per_fn[fn].avg_time * len(queue.queue) / queue.concurrency_limit
        return f", which takes about {seconds:.0f} s"

    async def _refuse(self, body: PredictBodyInternal, request: Request, username: str | None, sentence: str) -> str:
        """An answer that nothing was computed for; its number."""
        event = Event(body.session_hash, self.blocks.fns[body.fn_index], request, username)
        async with self.pending_message_lock:
            if event.session_hash not in self.pending_messages_per_session:
                self.pending_messages_per_session[event.session_hash] = Messages()
            self.pending_event_ids_session.setdefault(event.session_hash, set()).add(event._id)
        output = error_payload(Error(sentence), show_error=True)
        self.send_message(event, ProcessCompletedMessage(output=output, title="Error", success=False))
        return event._id

    def _take_turns(self, concurrency_id: str) -> None:
        """Put those who wait for the same into the order of their turns, and tell them."""
        waiting = self.event_queue_per_concurrency_id[concurrency_id].queue
        asked = Counter(visitor_of(event.request) for event in self._running_of(concurrency_id))
        turns = {}
        for event in sorted(waiting, key=lambda event: event.enqueue_time):
            visitor = visitor_of(event.request)
            turns[event._id] = asked[visitor], event.enqueue_time
            asked[visitor] += 1
        order = sorted(waiting, key=lambda event: turns[event._id])
        if order != waiting:
            waiting[:] = order
            self.broadcast_estimations(concurrency_id)

    def _forget_idle_sessions(self) -> None:
        """Of sessions that wait for nothing the older half goes, once there are many."""
        if max(len(self.pending_messages_per_session), len(self.pending_event_ids_session)) < MOST_SESSIONS:
            return
        busy = {event.session_hash for event in self.unfinished()}
        idle = [session for session in self.pending_messages_per_session if session not in busy]
        for session in idle[: max(0, len(idle) - MOST_SESSIONS // 2)]:
            del self.pending_messages_per_session[session]
        for session in [*self.pending_event_ids_session]:
            if session not in self.pending_messages_per_session:
                del self.pending_event_ids_session[session]


class QueuePlaces:
    """An ASGI application before the page's, by which who asks by plain HTTP, `/call/`, is told place and time, too.

    What he reads has an event `estimation` if he has to wait, and again with each heartbeat; Gradio leaves them out.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let the page answer, and add to it."""
        is_question = scope["type"] == "http" and scope["method"] == "GET"
        asked = CALL.fullmatch(get_route_path(scope)) if is_question else None

        async def telling(message: Message) -> None:
            await send(message)
            begins = message["type"] == "http.response.start" and message["status"] == 200
            is_time = begins or message.get("body", b"").startswith(HEARTBEAT)
            if is_time and (place := scope["app"].get_blocks()._queue.place_of(asked[1])):
                body = f"event: estimation\ndata: {json.dumps(place)}\n\n".encode()
                await send({"type": "http.response.body", "body": body, "more_body": True})

        await self.app(scope, receive, telling if asked else send)


def visitor_of(request: Request) -> str:
    """Whose a question is: the address it came from, of which a household has 2^64 in IPv6.

    uvicorn puts in what a proxy says, if that is one which FORWARDED_ALLOW_IPS names.
    """
    return _network_of(request.client.host if request.client else "")


@lru_cache(maxsize=2 * MOST_WAITING)
def _network_of(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return str(int(address) >> 64) if isinstance(address, IPv6Address) and not address.ipv4_mapped else host


def paths_in(data: object) -> Iterator[str]:
    """The files of a question; without recursion, as that may be nested more deeply than Python goes."""
    left = [data]
    while left:
        data = left.pop()
        if isinstance(data, dict):
            if isinstance(data.get("path"), str):
                yield data["path"]
            else:
                left += data.values()
        elif isinstance(data, list):
            left += data
