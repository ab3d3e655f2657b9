// The table of this visit's songs. Gradio runs this when the component is there, with `element`, `props`, `trigger` and
// `watch`; props.value is the JSON of crnn.web.songs.songs_view. A click on a song asks to open it.

const root = element.querySelector('.songs'), body = root.querySelector('tbody');
let songs = {rows: []}, order = {key: null, down: false};

const dot = colour => html('i', {class: 'dot', style: `background: ${colour}`});
const named = (colour, ...words) => html('span', {class: 'named'}, dot(colour), ...words);
const value = {
  song: row => row.song.toLowerCase(),
  verdict: row => row.verdict ?? '',
  share: row => row.top?.[0]?.share ?? -1,
  second: row => row.top?.[1]?.genre ?? '',
  seconds: row => row.seconds ?? -1,
  model: row => row.model,
};

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
  const open = html('button', {type: 'button'}, row.song);
  open.addEventListener('click', () => trigger('select', {id: row.id}));
  const cells = [html('th', {scope: 'row'}, row.error ? row.song : open)];
  if (row.error) {
    cells.push(html('td', {colspan: 6, class: 'error'}, html('div', {}, sentence(row.error))));
    return html('tr', {}, ...cells);
  }
  const [first, second] = row.top;
  const answer = row.is_genre ? [named(first.colour, row.verdict)]
    : [message(row.verdict), ...(first ? ['\u00a0· ', named(first.colour, first.genre)] : [])];
  const notices = row.notices.map(notice => html('small', {class: 'noticed'}, sentence(notice)));
  cells.push(
    html('td', {}, ...answer, ...notices),
    html('td', {class: 'number'}, first ? percent(first.share) : '–'),
    html('td', {}, second ? named(second.colour, `${second.genre} ${percent(second.share)}`) : '–'),
    html('td', {}, course(row.course)),
    html('td', {class: 'number'}, clock(row.seconds)),
    html('td', {class: 'model'}, row.model),
  );
  return html('tr', {}, ...cells);
}

function draw() {
  const rows = [...songs.rows];
  if (order.key) {
    const of = value[order.key];
    rows.sort((a, b) => (of(a) > of(b)) - (of(a) < of(b)));
    if (order.down) rows.reverse();
  }
  body.replaceChildren(...rows.map(line));
  for (const button of root.querySelectorAll('[data-sort]')) {
    const sorted = button.dataset.sort === order.key;
    button.parentElement.setAttribute('aria-sort', !sorted ? 'none' : order.down ? 'descending' : 'ascending');
  }
}

function show() {
  songs = props.value ? JSON.parse(props.value) : {rows: []};
  const none = !songs.rows.length;
  root.querySelector('[data-part=none]').hidden = !none;
  for (const name of ['table', 'downloads']) root.querySelector(`[data-part=${name}]`).hidden = none;
  for (const button of root.querySelectorAll('[data-take]')) button.disabled = !songs.csv;  // while more are heard
  draw();
}

for (const button of root.querySelectorAll('[data-sort]')) {
  button.addEventListener('click', () => {
    const key = button.dataset.sort, isNumber = key === 'share' || key === 'seconds';
    order = {key, down: order.key === key ? !order.down : isNumber};
    draw();
  });
}
for (const button of root.querySelectorAll('[data-take]')) {
  button.addEventListener('click', () => {
    const format = button.dataset.take;
    window.saveText(songs[format], format === 'csv' ? 'text/csv' : 'application/json', `genres.${format}`);
  });
}
watch('value', show);
show();
