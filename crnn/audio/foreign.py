"""What a file is that holds no sound, by its first bytes, so that it can be called by its name."""

import re

NOTES = "{name} is a {kind} file, which holds notes and no sound: export it as audio first."
PROJECT = "{name} is a project of {kind}, not its sound: export it as audio first."
PICTURE = "{name} is a picture ({kind}), which holds no sound: choose a sound or a video."
DOCUMENT = "{name} is a document ({kind}), which holds no sound: choose a sound or a video."
WEB_PAGE = "{name} is a web page ({kind}), not the sound that it leads to: fetch that."
LINK = "{name} ({kind}) only says where a sound is: choose the sound itself."
ARCHIVE = "{name} is an archive ({kind}): unpack it, then choose a song of it."
PROTECTED = "{name} is protected against copying ({kind}), so that nothing but its shop's player can decode it."
UNREAD = "{name} is in the format {kind}, which is not read here: save it as flac or mp3 first."
MESSAGES = (UNREAD, NOTES, PROJECT, PICTURE, DOCUMENT, WEB_PAGE, LINK, ARCHIVE, PROTECTED)

HEAD_BYTES = 16_384  # that `what_it_is` looks at

_MAGIC = (  # message, kind, position, bytes
    (NOTES, "MIDI", 0, b"MThd"),
    (NOTES, "MIDI", 8, b"RMID"),
    (NOTES, "MOD (XM)", 0, b"Extended Module: "),
    (NOTES, "MOD (IT)", 0, b"IMPM"),
    (NOTES, "MOD (S3M)", 44, b"SCRM"),
    (NOTES, "MOD", 1_080, b"M.K."),
    (NOTES, "SID", 0, b"PSID"),
    (NOTES, "SID", 0, b"RSID"),
    (NOTES, "Nintendo (NSF)", 0, b"NESM\x1a"),
    (NOTES, "VGM", 0, b"Vgm "),
    (NOTES, "SMAF", 0, b"MMMD"),
    (NOTES, "Guitar Pro", 1, b"FICHIER GUITAR PRO"),
    (NOTES, "SoundFont", 8, b"sfbk"),
    (PROJECT, "FL Studio", 0, b"FLhd"),
    (PROJECT, "Audacity", 68, b"AUDY"),
    (PICTURE, "PNG", 0, b"\x89PNG"),
    (PICTURE, "JPEG", 0, b"\xff\xd8\xff"),
    (PICTURE, "GIF", 0, b"GIF8"),
    (PICTURE, "WebP", 8, b"WEBP"),
    (PICTURE, "TIFF", 0, b"II*\0"),
    (PICTURE, "TIFF", 0, b"MM\0*"),
    (PICTURE, "BMP", 6, b"\0\0\0\0\x36\0\0\0\x28\0\0\0"),
    (PICTURE, "Photoshop", 0, b"8BPS"),
    (PICTURE, "HEIC", 4, b"ftypheic"),
    (PICTURE, "HEIC", 4, b"ftypmif1"),
    (PICTURE, "AVIF", 4, b"ftypavif"),
    (DOCUMENT, "PDF", 0, b"%PDF"),
    (DOCUMENT, "RTF", 0, b"{\\rtf"),
    (DOCUMENT, "Microsoft Office", 0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
    (DOCUMENT, "EPUB", 38, b"application/epub"),
    (DOCUMENT, "Microsoft Office", 30, b"[Content_Types].xml"),
    (DOCUMENT, "OpenDocument", 38, b"application/vnd.oasis"),
    (ARCHIVE, "ZIP", 0, b"PK\3\4"),
    (ARCHIVE, "RAR", 0, b"Rar!"),
    (ARCHIVE, "7z", 0, b"7z\xbc\xaf\x27\x1c"),
    (ARCHIVE, "gzip", 0, b"\x1f\x8b\x08"),
    (ARCHIVE, "bzip2", 0, b"BZh"),
    (ARCHIVE, "xz", 0, b"\xfd7zXZ\0"),
    (ARCHIVE, "tar", 257, b"ustar"),
    (LINK, "torrent", 0, b"d8:announce"),
    (LINK, "torrent", 0, b"d13:announce-list"),
    (LINK, "torrent", 0, b"d10:created by"),
    (LINK, "LNK", 0, b"L\0\0\0\x01\x14\x02\0"),
    (UNREAD, "OptimFROG", 0, b"OFR "),
    (UNREAD, "Lossless Audio", 0, b"LA0"),
    (UNREAD, "TwinVQ", 0, b"TWIN"),
    (UNREAD, "Bonk", 0, b"\0BONK"),
    (UNREAD, "RK Audio", 0, b"RKA"),
    (UNREAD, "AC-4", 0, b"\xac\x40"),
    (UNREAD, "AC-4", 0, b"\xac\x41"),
    (UNREAD, "ReCycle", 0, b"CAT "),
    (UNREAD, "RIFX", 0, b"RIFX"),
    (UNREAD, "Flash", 0, b"FWS"),
    (UNREAD, "Flash", 0, b"CWS"),
    (PROTECTED, "Audible", 4, b"\x57\x90\x75\x36"),
)
_TEXTS = (  # message, kind, pattern of what the text begins with
    (LINK, "M3U", r"#EXTM3U"),
    (LINK, "PLS", r"\[playlist\]"),
    (LINK, "URL", r"\[InternetShortcut\]"),
    (LINK, "ASX", r"<asx"),
    (LINK, "XSPF", r"(<\?xml[^>]*>\s*)?<playlist"),
    (LINK, "WPL", r"<\?wpl|<smil"),
    (LINK, "DASH", r"(<\?xml[^>]*>\s*)?<MPD"),
    (LINK, "concat", r"ffconcat version"),
    (LINK, "SDP", r"v=0\s+o="),
    (LINK, "CUE", r"(REM |PERFORMER |TITLE |CATALOG |FILE ).*(\n.*){0,40}\n\s*TRACK \d"),
    (LINK, "M3U", r"\S+://\S+\s*$|[^\n<>]+\.(?:mp3|m4a|flac|ogg|opus|wav|wma|aac|ts|mp4)[ \r]*(?:\n|$)"),
    (NOTES, "MusicXML", r"<\?xml(.*\n){0,4}.*score-(partwise|timewise)"),
    (NOTES, "ABC", r"X:\s*\d+\r?\n[A-Z]:"),
    (PROJECT, "Reaper", r"<REAPER_PROJECT"),
    (PROJECT, "Audacity", r"(<\?xml(.*\n){0,4})?.*<(audacity)?project [^>]*audacity"),
    (PICTURE, "SVG", r"(<\?xml[^>]*>\s*)?(<!--.*-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg"),
    (WEB_PAGE, "HTML", r"(<\?xml[^>]*>\s*)?(<!--.*-->\s*)?<(!doctype html|html|head|body)"),
    (DOCUMENT, "TXT", r""),
)
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_ENCRYPTIONS = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"), bytes.fromhex("14e68a292226174cb935dae07ee9289c")


def what_it_is(head: bytes) -> tuple[str, str] | None:
    """The message and the kind for a file that begins with `head` (HEAD_BYTES of it), or None if it is not known."""
    for message, kind, position, magic in _MAGIC:
        if head.startswith(magic, position):
            return message, kind
    text = _text(head)
    if text is None:
        return None
    return next((message, kind) for message, kind, pattern in _TEXTS if re.match(pattern, text, re.IGNORECASE))


def protection(head: bytes, codec_tag: str) -> str | None:
    """What protects a sound, by its file's first bytes and the FourCC of its track in an mp4; None if nothing does."""
    if head.startswith(_ASF):
        return "Windows Media DRM" if any(guid in head for guid in _ASF_ENCRYPTIONS) else None
    return {"drms": "FairPlay", "enca": "Common Encryption", "aavd": "Audible"}.get(codec_tag)


def _text(head: bytes) -> str | None:
    """The file's beginning without leading space if it is a text, else None."""
    try:
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            text = head[: len(head) // 2 * 2].decode("utf-16")
        else:
            text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else the last letter is cut
            text = head.decode("latin-1")
            if sum(letter.isascii() for letter in text) < 0.7 * len(text):
                return None
        else:
            text = head[: error.start].decode("utf-8-sig")
    if not text or any((letter < " " and letter not in "\t\n\r\f") or letter == "\x7f" for letter in text):
        return None
    return text.lstrip()
