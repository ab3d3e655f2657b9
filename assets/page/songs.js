// The table and the map of this visit's songs. Gradio runs this when the component is there, with `element`, `props`, `trigger` and
// `watch`; props.value is the JSON of crnn.web.songs.songs_view. A click on a song asks to open it.

const root = element.querySelector('.songs'), body = root.querySelector('tbody');
let songs = {rows: []}, order = {key: null, down: false}, taken = null;  // the last is what was downloaded

const dot = colour => html('i', {class: 'dot', style: `background: ${colour}`});
const named = (colour, ...words) => html('span', {class: 'named'}, dot(colour), ...words);
const nearest = row => row.is_strange ? [] : row.top ?? [];  // what is like nothing is no more like one than another
const colourOf = row => nearest(row)[0]?.colour ?? 'currentColor';
const value = {  // undefined where a row has none
  song: row => row.song,
  verdict: row => row.verdict && `${row.verdict}${row.is_strange ? ': strange' : ''}`,
  share: row => nearest(row)[0]?.share,
  second: row => nearest(row)[1]?.genre,
  seconds: row => row.seconds,
  model: row => row.model,
};

// The rows in their order: words as in the visitor's language, track 2 before track 10, and last what has no value.
function inOrder(rows) {
  const of = value[order.key], words = new Intl.Collator(document.documentElement.lang, {numeric: true});
  if (!of) return rows;
  const difference = (a, b) => typeof a === 'number' ? a - b : words.compare(a, b);
  const [having, lacking] = [false, true].map(lacks => rows.filter(row => (of(row) === undefined) === lacks));
  having.sort((a, b) => order.down ? difference(of(b), of(a)) : difference(of(a), of(b)));
  return [...having, ...lacking];
}

// The most probable genre from the start of the song to its end, as stripes.
function course(stretches) {
  const stripes = stretches.map(({colour, share}) => html('i', {style: `flex: ${share}; background: ${colour}`}));
  const words = stretches.map(({genre}) => genre).join(' → ');
  return html('span', {class: 'course', role: 'img', 'aria-label': words, title: words}, ...stripes);
}

// A sentence of the server with its values, which the page puts into the visitor's language.
function sentence({message: text, values}) {
  const node = message(text);
  Object.assign(node.dataset, values);
  return node;
}

function line(row) {
  const opener = html('button', {type: 'button'}, row.song);
  opener.addEventListener('click', () => trigger('select', {id: row.id}));
  const cells = [html('th', {scope: 'row', id: `song-${row.id}`}, row.error ? row.song : opener)];
  if (row.error) {
    cells.push(html('td', {colspan: 6, class: 'error'}, html('div', {}, sentence(row.error))));
    return html('tr', {}, ...cells);
  }
  const [first, second] = nearest(row);
  const answer = row.is_genre ? [named(first.colour, row.verdict)]
    : row.is_strange ? [message('Unsure: like nothing it knows')]
    : [message(row.verdict), ...(first ? ['\u00a0· ', named(first.colour, first.genre)] : [])];
  const notices = row.notices.map(notice => html('small', {class: 'noticed'}, sentence(notice)));
  cells.push(
    html('td', {}, html('span', {id: `answer-${row.id}`}, ...answer), ...notices),
    html('td', {class: 'number'}, first ? percent(first.share) : '–'),
    html('td', {}, second ? named(second.colour, `${second.genre} ${percent(second.share)}`) : '–'),
    html('td', {}, course(row.course)),
    html('td', {class: 'number'}, clock(row.seconds)),
    html('td', {class: 'model'}, row.model),
  );
  return html('tr', {}, ...cells);
}

function draw() {
  const had = body.querySelector('button:focus')?.closest('th').id;
  body.replaceChildren(...inOrder(songs.rows).map(line));
  if (had) document.getElementById(had)?.querySelector('button')?.focus();
  for (const button of root.querySelectorAll('[data-sort]')) {
    const sorted = button.dataset.sort === order.key;
    button.parentElement.setAttribute('aria-sort', !sorted ? 'none' : order.down ? 'descending' : 'ascending');
  }
}

// The map: a dot for each song in the colour of its genre, a ring where the model is unsure.
const map = root.querySelector('[data-part=map]'), drawing = map.querySelector('svg'), near = map.querySelector('.near');
const EDGE = 22, RADIUS = 7, TOUCHED = 12, NAME = 13, LINE = 18;  // pixels, the last two from a dot to its name
let chosen = null, drawnAt = 0;

const open = id => {
  trigger('select', {id});
  document.querySelector('#listen-tab-button').focus();
};
const dotOf = id => drawing.querySelector(`[data-id="${id}"]`);

// Where each song lies in pixels: both directions at the same scale, all of them within the edges.
function lay(width, height) {
  const entries = Object.entries(songs.map.places), middle = [], spread = [];
  for (const axis of [0, 1]) {
    const all = entries.map(([, place]) => place[axis]), low = Math.min(...all), high = Math.max(...all);
    middle.push((low + high) / 2);
    spread.push(Math.max(high - low, 1e-6));
  }
  const scale = Math.min((width - 2 * EDGE) / spread[0], (height - 2 * EDGE) / spread[1]);
  return new Map(entries.map(([id, [x, y]]) =>
    [id, [width / 2 + scale * (x - middle[0]), height / 2 - scale * (y - middle[1])]]));
}

function drawMap() {
  drawnAt = map.hidden ? 0 : drawing.clientWidth;
  if (!drawnAt) return;
  const had = drawing.contains(document.activeElement), width = drawnAt, height = Math.round(Math.min(420, 0.75 * width));
  const at = lay(width, height), rows = songs.rows.filter(row => at.has(row.id));
  if (!at.has(chosen)) chosen = rows[0].id;
  rows.sort((a, b) => at.get(a.id)[0] - at.get(b.id)[0]);  // as the arrow keys go
  drawing.setAttribute('viewBox', `0 0 ${width} ${height}`);
  drawing.style.height = `${height}px`;
  const covered = rows.map(row => box(at.get(row.id), -RADIUS, 2 * RADIUS));
  const dots = rows.map(row => {
    const [x, y] = at.get(row.id), colour = colourOf(row);
    const style = row.is_genre ? {fill: colour} : {fill: 'none', stroke: colour, 'stroke-width': 4};
    const node = svg(
      'g', {role: 'button', tabindex: -1, 'data-id': row.id, 'aria-labelledby': `song-${row.id} answer-${row.id}`},
      svg('circle', {cx: x, cy: y, r: TOUCHED, class: 'touched'}),
      svg('circle', {cx: x, cy: y, r: RADIUS + 1, class: 'edge'}), svg('circle', {cx: x, cy: y, r: RADIUS - 1, ...style}),
    );
    const name = row.song.length > 24 ? `${row.song.slice(0, 23)}…` : row.song, long = lengthOf(name, 12);
    const over = [-long / 2, -RADIUS, RADIUS - long];  // to the right of the dot or to its left, else under or over it
    const places = [[NAME, 0], [-NAME - long, 0], ...[LINE, -LINE].flatMap(down => over.map(start => [start, down]))];
    for (const [start, down] of places) {
      const room = box([x, y + down], start, long);
      const isOut = room.left < 0 || room.right > width || room.top < 0 || room.bottom > height;
      if (isOut || covered.some(other => crosses(room, other))) continue;
      covered.push(room);
      node.append(svg('text', {x: room.left, y: y + down + 4}, name));
      break;
    }
    return node;
  });
  drawing.replaceChildren(svg('g', {class: 'ties'}), ...dots);
  choose(chosen, at);
  if (had) dotOf(chosen).focus();
}
const box = ([x, y], start, long) => ({left: x + start, right: x + start + long, top: y - RADIUS, bottom: y + RADIUS});
const crosses = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

// Say of a song which ones are nearest, and tie it to them.
function choose(id, at = lay(drawnAt, drawing.viewBox.baseVal.height)) {
  chosen = id;
  const others = songs.map.nearest[id], row = of => songs.rows.find(other => other.id === of);
  const button = other => {
    const node = html('button', {type: 'button'}, dot(colourOf(row(other))), row(other).song);
    node.addEventListener('click', () => open(other));
    return node;
  };
  const words = sentence({message: 'Nearest to {song}:', values: {song: row(id).song}});
  near.replaceChildren(words, ...others.map(button));
  const [x1, y1] = at.get(id);
  drawing.querySelector('.ties').replaceChildren(...others.map(other => {
    const [x2, y2] = at.get(other);
    return svg('line', {x1, y1, x2, y2});
  }));
  for (const node of drawing.querySelectorAll('[data-id]')) {
    node.setAttribute('tabindex', node.dataset.id === id ? 0 : -1);
    node.setAttribute('aria-pressed', node.dataset.id === id);
  }
}

let wasChosen = null;  // when the pointer went down: what is chosen already opens
const idAt = event => event.target.closest('[data-id]')?.dataset.id;
drawing.addEventListener('pointerover', event => {
  const id = idAt(event);
  if (id && id !== chosen && event.pointerType === 'mouse') choose(id);
});
drawing.addEventListener('pointerdown', () => { wasChosen = chosen; });
drawing.addEventListener('focusin', event => {
  const id = idAt(event);
  if (id && id !== chosen) choose(id);
});
drawing.addEventListener('click', event => {
  const id = idAt(event);
  if (id && id === wasChosen) open(id);
  else if (id) choose(id);
});
drawing.addEventListener('keydown', event => {
  const all = [...drawing.querySelectorAll('[data-id]')], now = all.findIndex(node => node.dataset.id === chosen);
  const steps = {ArrowRight: now + 1, ArrowDown: now + 1, ArrowLeft: now - 1, ArrowUp: now - 1, Home: 0, End: all.length - 1};
  if (event.key === 'Enter' || event.key === ' ') open(chosen);
  else if (event.key in steps) all[Math.min(Math.max(steps[event.key], 0), all.length - 1)].focus();
  else return;
  event.preventDefault();
});
new ResizeObserver(() => { if (!map.hidden && drawing.clientWidth !== drawnAt) drawMap(); }).observe(root);

function show() {
  songs = props.value ? JSON.parse(props.value) : {rows: []};
  const none = !songs.rows.length;
  root.querySelector('[data-part=none]').hidden = !none;
  for (const name of ['table', 'downloads']) root.querySelector(`[data-part=${name}]`).hidden = none;
  late.hidden = true;
  draw();
  map.hidden = !songs.map;
  drawMap();
}

for (const button of root.querySelectorAll('[data-sort]')) {
  button.addEventListener('click', () => {
    const key = button.dataset.sort, isNumber = key === 'share' || key === 'seconds';
    order = {key, down: order.key === key ? !order.down : isNumber};
    draw();
  });
}
const late = root.querySelector('[data-part=late]');  // that the server is
const save = (text, type, name) => {
  late.hidden = Boolean(text);
  if (!text) return;
  taken = songs.csv;
  window.saveText(text, type, name);
};
root.querySelector('[data-take=csv]').addEventListener('click', () =>
  save(`\ufeff${songs.csv}`, 'text/csv', 'genres.csv'));  // Excel knows UTF-8 by its mark alone
// The JSON, which is many times as large, comes from the server.
window.songs.save = text => {
  save(text, 'application/json', 'genres.json');
  return '';  // of the field in which it came
};
root.querySelector('[data-take=json]').addEventListener('click', () =>
  window.songs.isAway() ? window.songs.save('') : trigger('take'));
// When the server is lost for a moment, Gradio begins the page anew and has forgotten the songs.
addEventListener('beforeunload', event => {
  if (element.isConnected && window.songs.isAway() && songs.rows.length && songs.csv !== taken) event.preventDefault();
});
watch('value', show);
show();
