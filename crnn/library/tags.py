"""The genre in the metadata of sound files, by mutagen: where it stands, and how it is put there beside all else."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import BinaryIO, ClassVar

import av
import mutagen
from mutagen.aiff import AIFF
from mutagen.apev2 import APENoHeaderError, APETextValue, APEv2
from mutagen.asf import ASF, ASFUnicodeAttribute
from mutagen.dsf import DSF
from mutagen.flac import FLAC
from mutagen.id3 import ID3, TCON, Frames, Frames_2_2, ID3JunkFrameError, ID3NoHeaderError, TextFrame
from mutagen.id3 import delete as delete_id3
from mutagen.monkeysaudio import MonkeysAudio
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4
from mutagen.mp4 import Atoms as AtomTree
from mutagen.musepack import Musepack
from mutagen.oggflac import OggFLAC
from mutagen.oggopus import OggOpus
from mutagen.oggspeex import OggSpeex
from mutagen.oggvorbis import OggVorbis
from mutagen.tak import TAK
from mutagen.trueaudio import TrueAudio
from mutagen.wave import WAVE
from mutagen.wavpack import WavPack

SUFFIXES = frozenset(
    ".aif .aifc .aiff .ape .asf .dsf .flac .m4a .m4b .m4r .mp3 .mp4 .mpc .oga .ogg .opus .spx .tak .tta "  # noqa: SIM905
    ".wav .wave .wma .wv".split()
)
ID3V1_NAMES = tuple(TCON.GENRES)  # with the players' additions, the standard names of genres
ID3V1_BYTES, TAIL_BYTES = 128, 512
HEAD_BYTES = 128  # by which mutagen knows kinds
NO_GENRE = 255  # of ID3v1
ATOM = "\xa9gen"
ATTRIBUTE = "WM/Genre"  # of ASF
APE_MAGIC, APE_EDGE_BYTES = b"APETAGEX", 32  # of its header and its footer
DSF_HEAD_BYTES = 28  # the last 16 are the size of the file and the place of its tag
LARGEST_NAMES = 2**20  # bytes of a RIFF chunk, or a QuickTime atom, with the names of things
QUICKTIME_KEYS = re.compile(rb"hdlr.{8}mdta.*?(?P<size>.{4})keys", re.DOTALL)
REPLACED = "\ufffd"  # what mutagen reads where a Vorbis comment is no UTF-8
NO_TEXT = "its genre is no text, so that it stays as it is"

# What models call genres, as far as no standard name has the same letters.
USUAL_NAMES = {"rnb": "R&B", "randb": "R&B", "dnb": "Drum & Bass", "drumandbass": "Drum & Bass", "edm": "EDM"}

NAMED = "mp3, flac, ogg, opus, m4a, wav, aiff, wma, ape, wv, mpc, tak, tta and dsf"

Places = dict[str, list]  # where in a file a genre stands, and what is there, ready for JSON; without what is not there


class TagError(ValueError):
    """A file whose genre cannot be read or written, in one sentence for the person who owns it."""


class OtherKindError(TagError):
    """A file of none of the KINDS."""


@dataclass(frozen=True)
class Genre:
    """What a file says of its genre."""

    names: tuple[str, ...]  # as people read them
    places: Places
    has_tag: bool  # whether there is a tag at all that places could be in
    elsewhere: str = ""  # a place with a genre that is read, but not written

    def beside(self, other: str, place: str) -> "Genre":
        """With another one, unless that is empty, in a place where none is written."""
        return replace(self, names=self.names or (other,), elsewhere=place) if other else self


def usual_name(genre: str) -> str:
    """A genre as people write it: by the standard names of ID3v1, "hiphop" is Hip-Hop; others begin with capitals."""
    letters = _letters(genre)
    by_letters = {_letters(name): name for name in reversed(ID3V1_NAMES)} | USUAL_NAMES
    if letters in by_letters:
        return by_letters[letters]
    return genre if genre != genre.lower() else " ".join(word[:1].upper() + word[1:] for word in genre.split(" "))


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


class Tags:
    """The tags of a file of one of the KINDS, read from it while it is open."""

    demuxer: ClassVar[str]  # of FFmpeg
    span: tuple[int, int] | None = None  # the bytes of the file that tags are no part of, where they are all together

    def __init__(self, kind: type, file: BinaryIO) -> None:
        self.kind = kind
        self.load(file)

    def again(self, file: BinaryIO) -> "Tags":
        """Those of another file of the same kind."""
        return type(self)(self.kind, file)

    def load(self, file: BinaryIO) -> None:
        """Read them."""
        file.seek(0)
        self.file = self.kind(file)

    def genre(self) -> Genre:
        """What they say of the genre."""
        raise NotImplementedError

    def places_of(self, name: str) -> Places:
        """What would be in the places of the genre if it had this name."""
        raise NotImplementedError

    def write(self, file: BinaryIO, places: Places, needs_tag: bool = True) -> None:
        """Put the genre into its places in a file that has these tags, and take it out of the others.

        If `needs_tag` is false, a tag that says nothing without the genre goes, too.
        """
        raise NotImplementedError

    def others(self) -> object:
        """All that is not the genre, to be compared."""
        raise NotImplementedError


class KnownFrames(dict):
    """Frames that mutagen knows, by their names; `unread` has those that it meets and cannot read, or drops."""

    def __init__(self, *known: dict[str, type]) -> None:
        super().__init__({name: frame for frames in known for name, frame in frames.items()})
        self.unread: list[str] = []

    def __getitem__(self, name: str) -> Callable:
        if name == "CRM" or (name not in self and not (name.isalnum() and name.isupper())):
            self.unread.append(name)
        frame = super().__getitem__(name)

        def read(*given: object) -> object:
            try:
                return frame._fromData(*given)
            except (ID3JunkFrameError, NotImplementedError):
                *_, data = given
                if data[1:].strip(b"\0\xfe\xff"):  # behind the encoding; else it says nothing
                    self.unread.append(name)
                raise

        noting = partial(frame)  # as it is also called
        noting._fromData = read
        return noting


class Id3(Tags):
    """ID3v2, in a chunk of an AIFF file.

    All frames but that of the genre are taken for unknown ones, which mutagen keeps byte for byte. Not so in ID3v2.2,
    which it makes ID3v2.3 of, and where the frames of ID3v2.4 are unsynchronised as a whole.
    """

    demuxer = "aiff"

    def load(self, file: BinaryIO) -> None:
        known = KnownFrames(Frames, Frames_2_2)
        self.all = self._read(file, known_frames=known, load_v1=True)
        self.unread = sorted(known.unread)
        self.tag = self._read(file, known_frames={"TCON": TCON}, load_v1=False)
        self.is_unsynchronised = self.tag is not None and self.tag.version >= (2, 4) and self.tag.f_unsynch
        if self.tag is not None and (self.tag.version < (2, 3) or self.is_unsynchronised):
            self.tag = self._read(file, load_v1=False)
        self.version = 4 if self.tag is not None and self.tag.version >= (2, 4) else 3

    def _read(self, file: BinaryIO, **options: object) -> ID3 | None:
        file.seek(0)
        self.file = self.kind(file, translate=False, v2_version=3, **options)
        return self.file.tags

    def genre(self) -> Genre:
        if {"TCON", "TCO"} & {*self.unread}:
            raise TagError(NO_TEXT)
        frames = self.tag.getall("TCON") if self.tag is not None else []
        names = tuple(name.strip() for frame in frames for name in frame.genres if name.strip())
        texts = [text for frame in frames for text in frame.text]
        places = {"TCON": texts} if any(texts) else {}  # mutagen writes no empty frames
        return Genre(names, places, self.tag is not None).beside(self._own_frame(), "TXXX frame")

    def _own_frame(self) -> str:
        """A genre in a frame of a program's own, which FFmpeg takes for that of the file."""
        frames = [] if self.all is None else self.all.getall("TXXX")
        return " ".join(str(frame).strip() for frame in frames if _is_genre(frame.desc))

    def places_of(self, name: str) -> Places:
        return {"TCON": [name]}

    def write(self, file: BinaryIO, places: Places, needs_tag: bool = True) -> None:
        tag = self._new() if self.tag is None else self.tag
        tag.delall("TCON")
        if texts := places.get("TCON"):
            wide = 3 if self.version == 4 else 1  # UTF-8, or UTF-16
            tag.add(TCON(encoding=0 if all(map(_is_latin, texts)) else wide, text=texts))
        elif not needs_tag and self._says_nothing():
            self._delete(file)
            return
        if self.tag is not None or texts:
            file.seek(0)
            tag.save(file, v2_version=self.version, v23_sep=None)

    def _new(self) -> ID3:
        self.file.add_tags()
        return self.file.tags

    def _says_nothing(self) -> bool:
        return not any(self.others())

    def _delete(self, file: BinaryIO) -> None:
        file.seek(0)
        self.tag.delete(file)

    def others(self) -> tuple[dict, list, list]:
        if self.all is None:
            return {}, [], []
        unknown = [bytes(frame) for frame in self.all.unknown_frames]
        if self.is_unsynchronised:
            unknown = [frame.replace(b"\xff\0", b"\xff") for frame in unknown]
        return _frames(self.all), sorted(unknown), self.unread


class RiffId3(Id3):
    """The same in a WAV file, where the genre may stand in a LIST chunk, too."""

    demuxer = "wav"

    def load(self, file: BinaryIO) -> None:
        super().load(file)
        self.info = _info_genre(file)

    def genre(self) -> Genre:
        return super().genre().beside(self.info, "LIST chunk")


class Dsf(Id3):
    """The same at the end of a DSF file, whose header says where."""

    def load(self, file: BinaryIO) -> None:
        super().load(file)
        size = file.seek(0, 2)
        file.seek(DSF_HEAD_BYTES - 8)
        place = int.from_bytes(file.read(8), "little") or size
        if self.tag is not None and place + self.tag.size < size:
            raise TagError("something follows its tag and would be lost, so it stays as it is")
        self.span = DSF_HEAD_BYTES, place

    def _delete(self, file: BinaryIO) -> None:
        file.seek(0)
        self.file.delete(file)
        size = file.seek(0, 2)  # which mutagen leaves as it was
        file.seek(DSF_HEAD_BYTES - 16)
        file.write(size.to_bytes(8, "little"))


class Id3v1:
    """The tag that some files end with; its last byte is the genre."""

    def __init__(self, tail: bytes) -> None:
        tail = tail[-ID3V1_BYTES:]
        self.tag = tail if tail.startswith(b"TAG") and len(tail) == ID3V1_BYTES else b""

    def beside(self, genre: Genre) -> Genre:
        """What a file says of its genre with this, too; other tags have longer names."""
        if not self.tag or (number := self.tag[-1]) == NO_GENRE:
            return genre
        name = ID3V1_NAMES[number] if number < len(ID3V1_NAMES) else str(number)
        return replace(genre, names=genre.names or (name,), places=genre.places | {"ID3v1": [number]})

    def places_of(self, name: str) -> Places:
        """As of `Tags`."""
        return {"ID3v1": [ID3V1_NAMES.index(name)]} if self.tag and name in ID3V1_NAMES else {}

    def holding(self, places: Places) -> bytes:
        """The tag with these places."""
        return self.tag[:-1] + bytes(places.get("ID3v1", [NO_GENRE])) if self.tag else b""


class Mp3(Id3):
    """ID3v2 at the beginning of an mp3, ID3v1 at its end, maybe APEv2 before that."""

    demuxer = "mp3"

    def load(self, file: BinaryIO) -> None:
        super().load(file)
        self.ape = _ape_genre(file)
        self.size = file.seek(0, 2)
        self.head_bytes = _head_bytes(file)
        file.seek(max(self.size - TAIL_BYTES, self.head_bytes))
        self.tail = file.read()
        self.id3v1 = Id3v1(self.tail)
        self.span = self.head_bytes, self.size - bool(self.id3v1.tag)  # whose last byte is the genre

    def _read(self, file: BinaryIO, **options: object) -> ID3 | None:
        file.seek(0)
        try:
            return ID3(file, translate=False, v2_version=3, **options)
        except ID3NoHeaderError:
            return None

    def genre(self) -> Genre:
        return self.id3v1.beside(super().genre()).beside(self.ape, "APE tag")

    def places_of(self, name: str) -> Places:
        return super().places_of(name) | self.id3v1.places_of(name)

    def write(self, file: BinaryIO, places: Places, needs_tag: bool = True) -> None:
        super().write(file, places, needs_tag)
        tail = self.tail.removesuffix(self.id3v1.tag) + self.id3v1.holding(places)  # mutagen would make it anew
        file.truncate(self.size - self.head_bytes + _head_bytes(file))
        file.seek(-len(tail), 2)
        file.write(tail)

    def _new(self) -> ID3:
        """With what ID3v1 says: players that find ID3v2 do not look there."""
        return ID3() if self.all is None else self.all

    def _says_nothing(self) -> bool:
        """Nor does it where ID3v1 says the same."""
        frames, *unknown = self.others()
        return not any(unknown) and frames == self._id3v1_frames()

    def _id3v1_frames(self) -> dict:
        read = self._read(BytesIO(self.id3v1.tag)) if self.id3v1.tag else None
        return {} if read is None else _frames(read)

    def _delete(self, file: BinaryIO) -> None:
        file.seek(0)
        delete_id3(file, delete_v1=False, delete_v2=True)


class Ape(Tags):
    """APEv2 at the end of a file, maybe ID3v1 behind it; mutagen would drop that."""

    def load(self, file: BinaryIO) -> None:
        self.tag = _ape(file)
        size = file.seek(0, 2)
        file.seek(max(0, size - ID3V1_BYTES))
        self.id3v1 = Id3v1(file.read())
        end = size - len(self.id3v1.tag)
        self.n_items, n_bytes = _ape_size(file, end)
        if (self.tag is None) != (not n_bytes):
            raise TagError("its APE tag is not where it should be, so that it stays as it is")
        self.span = 0, end - n_bytes

    def _key(self) -> str | None:
        return next((key for key in self.tag or () if _is_genre(key)), None)

    def genre(self) -> Genre:
        key, genre = self._key(), Genre((), {}, self.tag is not None)
        if key is not None:
            if not isinstance(self.tag[key], APETextValue):
                raise TagError(NO_TEXT)
            texts = [*self.tag[key]]
            names = tuple(text.strip() for text in texts if text.strip())
            genre = replace(genre, names=names, places={"APEv2": [key, *texts]})
        return self.id3v1.beside(genre)

    def places_of(self, name: str) -> Places:
        return {"APEv2": [self._key() or "Genre", name]} | self.id3v1.places_of(name)

    def write(self, file: BinaryIO, places: Places, needs_tag: bool = True) -> None:
        tag = APEv2() if self.tag is None else self.tag
        if (there := self._key()) is not None:
            del tag[there]
        for key, *texts in [places["APEv2"]] if "APEv2" in places else []:
            tag[key] = APETextValue("\0".join(texts), 0)
        file.truncate(self.span[1])
        if tag or (needs_tag and self.tag is not None):
            file.seek(0)
            tag.save(file)
        file.seek(0, 2)
        file.write(self.id3v1.holding(places))

    def others(self) -> tuple:
        """With how many items there are, as mutagen reads one of several with the same name."""
        items = [(key, value.kind, value.value) for key, value in (self.tag or {}).items() if not _is_genre(key)]
        return self.n_items - (self._key() is not None), sorted(items), self.id3v1.tag[:-1]


def tta_tags(kind: type, file: BinaryIO) -> Tags:
    """True Audio files have ID3 or APEv2; those with neither get ID3."""
    return Mp3(kind, file) if _ape(file) is None or _head_bytes(file) else Ape(kind, file)


class Attributes(Tags):
    """The attributes of an ASF file, such as wma."""

    demuxer = "asf"

    def genre(self) -> Genre:
        found = [value for _, value in self._pairs(of_genre=True)]
        if not all(isinstance(value, ASFUnicodeAttribute) for value in found):
            raise TagError(NO_TEXT)
        names = tuple(value.value.strip() for value in found if value.value.strip())
        values = [[value.value, value.language, value.stream] for value in found]
        own = " ".join(str(value).strip() for key, value in self._pairs() if _is_genre(key))
        return Genre(names, {ATTRIBUTE: values} if values else {}, True).beside(own, "Genre attribute")

    def places_of(self, name: str) -> Places:
        return {ATTRIBUTE: [[name, None, None]]}

    def write(self, file: BinaryIO, places: Places, needs_tag: bool = True) -> None:  # noqa: ARG002 - there always is one
        wanted = [
            (ATTRIBUTE, ASFUnicodeAttribute(text, language=language, stream=stream))
            for text, language, stream in places.get(ATTRIBUTE, [])
        ]
        self.file.tags[:] = self._pairs() + wanted
        file.seek(0)
        self.file.save(file)

    def others(self) -> object:
        return sorted((key, value.TYPE, repr(value)) for key, value in self._pairs())

    def _pairs(self, of_genre: bool = False) -> list[tuple]:
        return [(key, value) for key, value in [*self.file.tags] if (key == ATTRIBUTE) == of_genre]


class Comments(Tags):
    """Vorbis comments, in an Ogg file of any codec."""

    demuxer = "ogg"

    def _pairs(self) -> list[tuple[str, str]]:
        return [] if self.file.tags is None else [(key, value) for key, value in list(self.file.tags)]

    def genre(self) -> Genre:
        pairs = [[key, value] for key, value in self._pairs() if _is_genre(key)]
        if any(REPLACED in value for _, value in pairs):
            raise TagError(NO_TEXT)
        names = tuple(value.strip() for _, value in pairs if value.strip())
        return Genre(names, {"comments": pairs} if pairs else {}, self.file.tags is not None)

    def places_of(self, name: str) -> Places:
        key = next((key for key, _ in self._pairs() if _is_genre(key)), "GENRE")
        return {"comments": [[key, name]]}

    def write(self, file: BinaryIO, places: Places, needs_tag: bool = True) -> None:
        pairs, wanted = self._pairs(), [tuple(pair) for pair in places.get("comments", [])]
        first = next((number for number, (key, _) in enumerate(pairs) if _is_genre(key)), len(pairs))
        others = [[pair for pair in part if not _is_genre(pair[0])] for part in (pairs[:first], pairs[first:])]
        if self.file.tags is None:
            self.file.add_tags()
        self.file.tags[:] = [*others[0], *wanted, *others[1]]
        if not (needs_tag or self.file.tags):
            self._drop()
        file.seek(0)
        self.file.save(file)

    def _drop(self) -> None:
        """Ogg files have comments, be they empty."""

    def others(self) -> object:
        return [pair for pair in self._pairs() if not _is_genre(pair[0])]


class Flac(Comments):
    """Vorbis comments among the blocks of a FLAC file."""

    demuxer = "flac"

    def _drop(self) -> None:
        self.file.metadata_blocks.remove(self.file.tags)

    def others(self) -> object:
        blocks = [(block.code, block.write()) for block in self.file.metadata_blocks if block.code not in (1, 4)]
        return super().others(), blocks


class Atoms(Tags):
    """The list of atoms of an MP4 file."""

    demuxer = "mov"

    def load(self, file: BinaryIO) -> None:
        super().load(file)
        self.quicktime = _quicktime_genre(file)

    def genre(self) -> Genre:
        if {ATOM, "gnre"} & self._unread().keys():
            raise TagError(NO_TEXT)
        texts = [] if self.file.tags is None else self.file.tags.get(ATOM, [])
        names = tuple(text.strip() for text in texts if text.strip())
        genre = Genre(names, {ATOM: [*texts]} if texts else {}, self.file.tags is not None)
        return genre.beside(self._own_atom(), "own atom (----)").beside(self.quicktime, "QuickTime metadata")

    def _own_atom(self) -> str:
        """A genre in an atom of a program's own, which FFmpeg takes for that of the file."""
        found = (self.file.tags or {}).items()
        values = (value for key, values in found if _is_genre(key.rpartition(":")[2]) for value in values)
        return " ".join(bytes(value).decode("utf-8", "replace").strip() for value in values)

    def places_of(self, name: str) -> Places:
        return {ATOM: [name]}

    def write(self, file: BinaryIO, places: Places, needs_tag: bool = True) -> None:
        if self.file.tags is None:
            self.file.add_tags()
        self.file.tags.pop(ATOM, None)
        self.file.tags.update(places)
        file.seek(0)
        if needs_tag or self.file.tags or self._unread():
            self.file.save(file)
        else:
            self.file.delete(file)

    def others(self) -> object:
        tags = self.file.tags
        read = {} if tags is None else {key: repr(value) for key, value in tags.items() if key != ATOM}
        return read, self._unread()

    def _unread(self) -> dict[str, list[bytes]]:
        """What mutagen cannot read, by the names of the atoms: it keeps that, unless the same is written."""
        return {} if self.file.tags is None else self.file.tags._failed_atoms


KINDS: dict[type, Callable[[type, BinaryIO], Tags]] = {
    MP3: Mp3,
    FLAC: Flac,
    OggVorbis: Comments,
    OggOpus: Comments,
    OggFLAC: Comments,
    OggSpeex: Comments,
    MP4: Atoms,
    WAVE: RiffId3,
    AIFF: Id3,
    DSF: Dsf,
    TrueAudio: tta_tags,
    WavPack: Ape,
    MonkeysAudio: Ape,
    Musepack: Ape,
    TAK: Ape,
    ASF: Attributes,
}


def tags_of(file: BinaryIO) -> Tags:
    """The tags of an open file. Raises OtherKindError, other TagErrors, and whatever mutagen does.

    Of what is no mp3 by its sound, that is HeaderNotFoundError: mutagen takes whatever begins with ID3 for one.
    """
    try:
        found = None if _is_other_iff(file) else mutagen.File(file, options=list(KINDS))
    except mutagen.MutagenError:
        if not (kind := _kind_by_head(file)):
            raise
        file.seek(0)
        found = kind(file)
    if found is None or (type(found) is MP3 and _is_program_stream(file)):
        raise OtherKindError(f"tags are written to {NAMED} files, of which this is none")
    return KINDS[type(found)](type(found), file)


def _kind_by_head(file: BinaryIO) -> type | None:
    """What a file is by its first bytes, whatever its name says."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    scores = {kind: kind.score("", file, head) for kind in KINDS}
    best = max(scores, key=scores.get)
    return best if scores[best] else None


def _is_other_iff(file: BinaryIO) -> bool:
    """Whether it is in the container of WAV or AIFF, of which mutagen looks at the outside alone, but neither."""
    file.seek(0)
    head = file.read(12)
    file.seek(0)
    return head[:4] in (b"RIFF", b"FORM") and head[8:] not in (b"WAVE", b"AIFF", b"AIFC")


def _is_program_stream(file: BinaryIO) -> bool:
    """Whether it is a film in MPEG's own container, in which mutagen finds the sound, and takes it for an mp3."""
    file.seek(0)
    return file.read(3) == b"\0\0\1"


def _is_genre(key: str) -> bool:
    return key.lower() == "genre"


def _is_latin(text: str) -> bool:
    return all(ord(sign) < 256 for sign in text)


def _frames(tag: ID3) -> dict[str, str]:
    """But for texts that say nothing, which mutagen does not write."""
    told = {key: frame for key, frame in tag.items() if not isinstance(frame, TextFrame) or str(frame)}
    return {key: repr(frame) for key, frame in told.items() if frame.FrameID != "TCON"}


def _head_bytes(file: BinaryIO) -> int:
    """How long the ID3v2 tag at the beginning of a file is."""
    file.seek(0)
    head = file.read(10)
    if len(head) < 10 or not head.startswith(b"ID3"):
        return 0
    return 10 + sum(byte << 7 * place for place, byte in enumerate(reversed(head[6:])))


def _ape(file: BinaryIO) -> APEv2 | None:
    file.seek(0)
    try:
        return APEv2(file)
    except APENoHeaderError:
        return None


def _ape_genre(file: BinaryIO) -> str:
    return str((_ape(file) or {}).get("Genre", ""))


def _ape_size(file: BinaryIO, end: int) -> tuple[int, int]:
    """How many items the APE tag that ends there has, and how many bytes with header and footer; 0 without one."""
    file.seek(max(0, end - APE_EDGE_BYTES))
    footer = file.read(APE_EDGE_BYTES)
    if not footer.startswith(APE_MAGIC):
        return 0, 0
    _, n_bytes, n_items, flags = (int.from_bytes(footer[at : at + 4], "little") for at in range(8, 24, 4))
    return n_items, n_bytes + APE_EDGE_BYTES * (flags >> 31)


def _quicktime_genre(file: BinaryIO) -> str:
    """The genre of a QuickTime film, which has lists of its own beside that of MP4, "" if there is none."""
    tree = AtomTree(file)
    has_genre = b"moov.udta." + ATOM.encode("latin-1") in tree
    for meta in filter(tree.__contains__, (b"moov.udta.meta", b"moov.meta")):
        file.seek(tree[meta].offset)
        # The tree goes no deeper: QuickTime's own `meta` lacks the version before its atoms that mutagen skips.
        if keys := QUICKTIME_KEYS.search(file.read(min(tree[meta].length, LARGEST_NAMES))):
            names = keys.string[keys.end() :][: int.from_bytes(keys["size"], "big")]
            has_genre = has_genre or b"genre" in names.lower()
    if not has_genre:
        return ""
    file.seek(0)
    with av.open(file, format=Atoms.demuxer, metadata_errors="surrogateescape") as film:
        return next((value.strip() for name, value in film.metadata.items() if name.lower().endswith("genre")), "")


def _info_genre(file: BinaryIO) -> str:
    """The genre in the LIST chunk of a RIFF file, "" if there is none."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        size = int.from_bytes(head[4:], "little")
        following = file.tell() + size + size % 2
        if head.startswith(b"LIST") and file.read(4) == b"INFO":
            _, found, rest = file.read(min(size - 4, LARGEST_NAMES)).partition(b"IGNR")
            if found:
                return rest[4 : 4 + int.from_bytes(rest[:4], "little")].rstrip(b"\0 ").decode("utf-8", "replace")
        file.seek(following)
    return ""
