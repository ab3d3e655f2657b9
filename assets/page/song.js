// The song over time: waveform, genres and mel spectrogram on one axis, with the playhead of the page's player.
// Gradio runs this when the component is there, with `element`, `props`, `trigger` and `watch`; props.value is the JSON
// of crnn.web.view.song_view, props.overlay that of what spoke for a genre.

const WAVE = {top: 4, height: 46}, COURSE = {top: 80, height: 150}, MEL = {top: 260, height: 190};
const HEIGHT = 480, GUTTER = 58, LEGEND_LINE = 18, WIDEST = 30_000, SAVED = 4_000;  // px
const NARROWEST = 1.2;  // px of a bar of the waveform
const LEAP = 30;  // seconds of a page of the keyboard
const PIXELS_A_SECOND = 100;  // of the closest zoom: about four to a frame
const UNDER_OVERLAY = 'grayscale(1) brightness(0.8)';
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200];  // seconds between the marks of the axis

const root = element.querySelector('.song');
let song = null, zoom = 1, overlay = null, playhead = null, pointed = null;
let drawnAt = 0, scrolledTo = 0, wasInView = true;  // px; whether the playhead was

const player = () => document.querySelector('#song audio');

// What is there before the first song, too, so that nothing jumps when it comes.
const part = Object.fromEntries([...root.querySelectorAll('[data-part]')].map(node => [node.dataset.part, node]));

function show() {
  song = props.value ? JSON.parse(props.value) : null;
  zoom = 1;
  part.fault.hidden = !(song && player()?.error);
  part.name.textContent = song?.name ?? '';
  root.classList.toggle('empty', !song);
  part.none.hidden = Boolean(song);
  part.track.tabIndex = song ? 0 : -1;
  for (const control of root.querySelectorAll('button, select')) control.disabled = !song;
  part.why.replaceChildren(html('option', {value: '', 'data-say': 'no genre'}, 'no genre'));
  for (const genre of song?.genres ?? []) part.why.append(new Option(`${genre.name} ${percent(genre.share)}`, genre.name));
  showOverlay();
}

function showOverlay() {
  overlay = props.overlay ? JSON.parse(props.overlay) : null;
  part.why.value = overlay?.genre ?? '';
  draw();
}

function draw() {
  drawnAt = root.clientWidth;
  if (!drawnAt) return;  // in a tab that is not seen
  const width = Math.max(drawnAt - GUTTER, 100);
  const widest = song ? Math.min(WIDEST, Math.max(width, PIXELS_A_SECOND * song.duration_seconds)) : width;
  zoom = Math.min(zoom, widest / width);
  part.closer.disabled = !song || zoom * width > widest - 1;
  part.farther.disabled = !song || zoom <= 1;
  part.scale.replaceChildren(scale());
  part.colours.replaceChildren(...(song ? [colours()] : []));
  part.colours.style.filter = overlay?.tiles.length ? UNDER_OVERLAY : '';
  const picture = drawing(width * zoom);
  playhead = svg('line', {class: 'playhead', y1: WAVE.top, y2: MEL.top + MEL.height});
  picture.append(playhead);
  part.track.style.width = `${width * zoom}px`;
  part.track.replaceChildren(picture);
  follow();
}

// Text is written for the size at which it is shown, at every width and zoom; so much of it is `seen` at a time.
function drawing(width, seen = drawnAt - GUTTER) {
  const picture = svg('svg', {width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, 'aria-hidden': true});
  for (const lane of [WAVE, COURSE, MEL])
    picture.append(svg('rect', {x: 0, y: lane.top, width, height: lane.height, class: 'lane'}));
  if (!song) return picture;
  const x = seconds => width * seconds / song.duration_seconds;
  picture.append(...waveform(width), ...areas(x, width, seen), ...melSpectrogram(x), ...timeAxis(x, width));
  return picture;
}

// Bars in the colour of the most probable genre of their loudest moment.
function waveform(width) {
  const all = song.peaks, n = Math.min(all.length, Math.floor(width / NARROWEST)), step = width / n, bars = {};
  const middle = WAVE.top + WAVE.height / 2, first = i => Math.floor(i * all.length / n);
  for (let i = 0; i < n; i++) {
    const peaks = all.slice(first(i), first(i + 1)), loudest = Math.max(...peaks);
    const half = Math.max(0.5, WAVE.height / 2 * loudest), at = first(i) + peaks.indexOf(loudest) + 0.5;
    const colour = genresAt(at * song.duration_seconds / all.length)[0]?.colour ?? 'currentColor';
    bars[colour] ??= '';
    bars[colour] += `M${(i * step).toFixed(1)} ${(middle - half).toFixed(1)}v${(2 * half).toFixed(1)}h${(step * 0.7).toFixed(2)}v${(-2 * half).toFixed(1)}z`;
  }
  return Object.entries(bars).map(([fill, d]) => svg('path', {d, fill}));
}

function areas(x, width, seen) {
  const y = share => COURSE.top + COURSE.height * (1 - share);
  const below = song.seconds.map(() => 0), shapes = [], names = [];
  for (const genre of song.genres) {
    const lower = [...below];
    genre.shares.forEach((share, i) => { below[i] += share ?? 0; });
    let d = '';
    for (const [from, to] of stretches(genre.shares)) {
      const line = heights => widened(heights.slice(from, to).map((height, i) => [x(song.seconds[from + i]), y(height)]));
      const points = [...line(below), ...line(lower).reverse()];
      d += `M${points.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(2)}`).join('L')}z`;
    }
    shapes.push(svg('path', {d, fill: genre.colour}, svg('title', {}, genre.name)));
    for (const place of roomiest(genre, width, seen)) names.push(svg('text', {
      x: x(song.seconds[place]), y: y((below[place] + lower[place]) / 2) + 4, 'text-anchor': 'middle',
      'font-size': 13, fill: genre.ink,
    }, genre.name));
  }
  return [...shapes, ...names];
}

// What sounds for less than a bar's width is drawn as wide: else it would not be seen.
function widened(line) {
  const [[left, first], [right, last]] = [line[0], line.at(-1)], more = (NARROWEST - (right - left)) / 2;
  return more > 0 ? [[left - more, first], ...line, [right + more, last]] : line;
}

// The stretches [from, to) of a song in which it sounds.
function stretches(shares) {
  const found = [];
  shares.forEach((share, i) => {
    if (share === null) return;
    if (i && shares[i - 1] !== null) found[found.length - 1][1] = i + 1;
    else found.push([i, i + 1]);
  });
  return found;
}

// Where the name of a genre fits best into its area, once in what is seen at a time, and not at its edges if need not be.
function roomiest(genre, width, seen) {
  const {seconds, duration_seconds: duration} = song, half = duration * (16 + lengthOf(genre.name, 13)) / 2 / width;
  const views = Math.max(1, Math.round(width / seen)), places = [];
  for (let view = 0; view < views; view++) {
    const from = duration * view / views, to = duration * (view + 1) / views, middle = (from + to) / 2;
    let best = -1, most = 18 / COURSE.height;
    for (let i = pointFrom(Math.max(from, half)); seconds[i] < to && seconds[i] <= duration - half; i++) {
      if (!(genre.shares[i] > most - 0.01)) continue;  // which is soon seen
      let least = 1;
      const [first, last] = [Math.max(0, pointFrom(seconds[i] - half) - 1), pointFrom(seconds[i] + half)];
      for (let j = first; j <= last && least > most - 0.01; j++) least = Math.min(least, genre.shares[j] ?? 0);
      const isNearer = Math.abs(seconds[i] - middle) < Math.abs(seconds[best] - middle);
      if (least > most + 0.01 || least > most - 0.01 && best >= 0 && isNearer) [best, most] = [i, Math.max(least, most)];
    }
    if (best >= 0) places.push(best);
  }
  return places;
}

// The first point that is not before a moment, by bisection: points lie closer where the sound begins or ends.
function pointFrom(seconds) {
  let low = 0, high = song.seconds.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (song.seconds[middle] < seconds) low = middle + 1;
    else high = middle;
  }
  return low;
}

function melSpectrogram(x) {
  const whole = x(song.spectrogram_seconds);
  const grey = overlay?.tiles.length ? `filter: ${UNDER_OVERLAY}` : '';
  const image = (tile, style) => svg('image', {
    href: tile.href, x: whole * tile.start, y: MEL.top, width: whole * tile.width + 0.5, height: MEL.height,
    preserveAspectRatio: 'none', style,
  });
  const pictures = song.tiles.map(tile => image(tile, grey));
  if (overlay) pictures.push(...overlay.tiles.map(tile => image(tile, '')));
  return pictures;
}

function timeAxis(x, width) {
  const y = MEL.top + MEL.height;
  const step = STEPS.find(step => x(step) >= 64) ?? STEPS.at(-1);
  const marks = [];
  for (let i = 0; i * step <= song.duration_seconds + 1e-6; i++) {
    const tenths = Math.round(10 * i * step), seconds = tenths / 10, at = x(seconds);
    marks.push(svg('path', {d: `M${at.toFixed(1)} ${y}v5`, stroke: 'currentColor'}));
    const anchor = at < 12 ? 'start' : at > width - 14 ? 'end' : 'middle';
    const text = step < 1 ? `${clock(seconds)}.${tenths % 10}` : clock(seconds);
    marks.push(svg('text', {x: at, y: y + 19, 'text-anchor': anchor, 'font-size': 12, fill: 'currentColor'}, text));
  }
  return marks;
}

function scale() {
  const picture = svg('svg', {width: GUTTER, height: HEIGHT, viewBox: `0 0 ${GUTTER} ${HEIGHT}`, 'aria-hidden': true});
  const text = (y, words) => picture.append(
    svg('text', {x: GUTTER - 8, y: y + 4, 'text-anchor': 'end', 'font-size': 12, fill: 'currentColor'}, words));
  for (const share of [0, 0.5, 1]) text(COURSE.top + COURSE.height * (1 - share), percent(share));
  for (const [hz, height] of song?.ticks_hz ?? []) text(MEL.top + MEL.height * (1 - height), String(hz));
  if (song) text(MEL.top - 10, 'Hz');
  return picture;
}

// The decibels of the spectrogram's colours.
function colours() {
  const picture = svg('svg', {width: 190, height: 18, viewBox: '0 0 190 18', role: 'img'});
  picture.setAttribute('aria-label', `${song.floor_db} dB – 0 dB`);
  song.colours.forEach((colour, i, all) =>
    picture.append(svg('rect', {x: 48 + 100 * i / all.length, y: 3, width: 100 / all.length + 0.5, height: 12, fill: colour})));
  for (const [x, anchor, words] of [[44, 'end', String(song.floor_db)], [152, 'start', '0 dB']])
    picture.append(svg('text', {x, y: 13, 'text-anchor': anchor, 'font-size': 12, fill: 'currentColor'}, words));
  return picture;
}

// The playhead, and what is said beside it.

function follow(isSought = false) {
  const audio = player(), duration = song?.duration_seconds ?? 0;
  const seconds = audio?.currentTime || 0, heard = Math.min(seconds, duration);  // a long song goes on unheard
  put(part.time, `${clock(seconds)} / ${clock(duration)}`);
  put(part.play, audio && !audio.paused ? '❚❚' : '▶');
  part.play.dataset.sayLabel = audio && !audio.paused ? 'Pause' : 'Play';
  window.say?.(part.play, part.play.dataset.sayLabel, 'aria-label');
  const at = duration ? Math.min(1, seconds / duration) * parseFloat(part.track.style.width) : 0;
  playhead?.setAttribute('transform', `translate(${at.toFixed(1)} 0)`);
  part.track.setAttribute('aria-valuemax', Math.round(duration));
  part.track.setAttribute('aria-valuenow', Math.round(heard));
  const now = inWords(genresAt(seconds));
  put(part.now, pointed === null ? now : `${clock(pointed)}: ${inWords(genresAt(pointed))}`);
  part.track.setAttribute('aria-valuetext', `${clock(seconds)} ${now}`);
  const view = part.scroller, isInView = () => at >= view.scrollLeft && at <= view.scrollLeft + view.clientWidth;
  const isPlaying = audio && !audio.paused, hasScrolled = view.scrollLeft !== scrolledTo;
  if ((isSought || isPlaying && wasInView && !hasScrolled) && !isInView()) view.scrollLeft = at - view.clientWidth / 8;
  [scrolledTo, wasInView] = [view.scrollLeft, isInView()];
}

// The genres at a moment, the most probable first; none where the song is silent or was not heard.
function genresAt(seconds) {
  if (!song?.genres.length || seconds > song.duration_seconds + 0.5) return [];
  const next = pointFrom(seconds), before = Math.max(0, next - 1);
  const i = seconds - song.seconds[before] < song.seconds[next] - seconds ? before : next;
  return song.genres.filter(genre => genre.shares[i] !== null)
    .map(({name, colour, shares}) => ({name, colour, share: shares[i]})).sort((a, b) => b.share - a.share);
}

const inWords = genres => genres.slice(0, 3).map(({name, share}) => `${name} ${percent(share)}`).join(' · ');

function tick() {
  follow();
  if (element.isConnected && player() && !player().paused) requestAnimationFrame(tick);
}

function seek(seconds) {
  const audio = player();
  if (!audio || !song) return;
  audio.currentTime = Math.max(0, Math.min(song.duration_seconds, seconds));
  follow(true);
}

function toggle() {
  const audio = player();
  // It is refused, too, where "pause" comes before the sound does.
  if (audio?.paused) audio.play().catch(error => { if (error.name === 'NotSupportedError') part.fault.hidden = false; });
  else audio?.pause();
}

// About the playhead if it is seen, else about the middle of what is.
function magnify(factor) {
  const view = part.scroller, whole = () => parseFloat(part.track.style.width);
  const middle = wasInView ? (player()?.currentTime ?? 0) / song.duration_seconds
    : (view.scrollLeft + view.clientWidth / 2) / whole();
  zoom = Math.max(1, zoom * factor);
  draw();
  view.scrollLeft = whole() * middle - view.clientWidth / 2;
  follow();
}

// The whole song as a picture, as wide as it is zoomed, with its scale, its title and the colours of the genres.
function poster() {
  const seen = Math.max(640, part.scroller.clientWidth), width = Math.min(seen * zoom, SAVED);
  const reason = overlay?.tiles.length ? document.querySelector('#reasons [data-say]').textContent : '';
  const said = `${song.name} – ${verdict()}`, size = fitted(said, 17, width, 600);
  const title = svg('text', {x: GUTTER, y: 26, 'font-size': size, 'font-weight': 600, fill: 'currentColor'}, said);
  const legend = svg('g', {transform: `translate(${GUTTER} 46)`});
  let at = 0, top = 0;
  for (const genre of song.genres) {
    const words = `${genre.name} ${percent(genre.share)}`, long = Math.max(110, 34 + lengthOf(words, 12));
    if (at && at + long > width) [at, top] = [0, top + LEGEND_LINE];
    legend.append(
      svg('rect', {x: at, y: top - 10, width: 11, height: 11, fill: genre.colour}),
      svg('text', {x: at + 16, y: top, 'font-size': 12, fill: 'currentColor'}, words));
    at += long;
  }
  const body = svg('g', {transform: `translate(0 ${top + 56})`});
  const [left, right] = [scale(), drawing(width, seen)];
  right.setAttribute('x', GUTTER);
  for (const lane of right.querySelectorAll('.lane')) lane.setAttribute('fill', 'none');
  const key = colours();
  for (const [name, value] of Object.entries({x: width + GUTTER - 190, y: MEL.top - 22})) key.setAttribute(name, value);
  if (overlay?.tiles.length) key.style.filter = UNDER_OVERLAY;
  body.append(left, right, key);
  for (const [lane, words] of [[COURSE, '.course'], [MEL, '.mel']])
    body.append(svg('text', {x: GUTTER, y: lane.top - 9, 'font-size': 13, 'font-weight': 600, fill: 'currentColor'},
      root.querySelector(words).textContent));
  const words = svg('text', {x: GUTTER, y: top + HEIGHT + 64, 'font-size': fitted(reason, 13, width), fill: 'currentColor'}, reason);
  const height = top + HEIGHT + (reason ? 82 : 62);
  return svg('svg', {width: width + GUTTER + 16, height}, title, legend, body, words);
}

const verdict = () => document.querySelector('#answer .verdict').textContent.replace(/\s+/g, ' ').trim();

async function share() {
  const files = [new File([await window.pictureOf(poster(), 'png')], `${song.name} genres.png`, {type: 'image/png'})];
  navigator.share({files, title: song.name, text: `${song.name} – ${verdict()}`}).catch(() => { /* not now */ });
}

part.play.addEventListener('click', toggle);
part.closer.addEventListener('click', () => magnify(2));
part.farther.addEventListener('click', () => magnify(0.5));
part.why.addEventListener('change', () => trigger('select', {genre: part.why.value}));
for (const button of root.querySelectorAll('[data-save-song]'))
  button.addEventListener('click', () => window.savePicture(poster(), `${song.name} genres`, button.dataset.saveSong));
part.share.hidden = !navigator.canShare?.({files: [new File([''], 'picture.png', {type: 'image/png'})]});
part.share.addEventListener('click', share);
const secondsAt = event => {
  const box = part.track.getBoundingClientRect();
  return Math.max(0, (event.clientX - box.left) / box.width * (song?.duration_seconds ?? 0));
};
part.track.addEventListener('click', event => seek(secondsAt(event)));
for (const name of ['pointermove', 'pointerleave']) {
  part.track.addEventListener(name, event => {
    pointed = song && name === 'pointermove' ? secondsAt(event) : null;
    follow();
  });
}
part.track.addEventListener('keydown', event => {
  const now = player()?.currentTime ?? 0, end = song?.duration_seconds ?? 0;
  const step = event.shiftKey ? 1 : 5, back = () => seek(now - step), on = () => seek(now + step);
  const keys = {
    ArrowLeft: back, ArrowDown: back, ArrowRight: on, ArrowUp: on,
    PageDown: () => seek(now - LEAP), PageUp: () => seek(now + LEAP),
    Home: () => seek(0), End: () => seek(end), ' ': toggle, '+': () => magnify(2), '-': () => magnify(0.5),
  };
  if (!song || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});

// Events of the player do not bubble; it comes and goes with the songs.
const listen = (name, action) => document.addEventListener(name, event => {
  if (element.isConnected && event.target === player()) action();
}, true);
listen('play', tick);
for (const name of ['pause', 'seeked', 'timeupdate', 'loadedmetadata', 'ended']) listen(name, follow);
listen('error', () => { part.fault.hidden = !song; });
listen('playing', () => { part.fault.hidden = true; });

new ResizeObserver(() => { if (root.clientWidth !== drawnAt) draw(); }).observe(root);
// A name in quotes would be one of an event to Gradio, whose function it would send with each overlay.
for (const [name, changed] of Object.entries({value: show, overlay: showOverlay})) watch(name, changed);
show();
