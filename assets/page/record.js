// Recording music as it sounds, from the microphone or from another tab of the browser, with answers while it plays.
// Gradio runs this when the component is there, with `element`, `props`, `trigger` and `watch`; props.value is the JSON
// of the last of these answers: the number of the passage, and its colour if a genre was heard.

const BLOCK = 2_048, BAR = 3;  // samples a block; px of the bar that a block becomes
const EVERY_SECONDS = 2, PATIENCE_MS = 15_000, GRACE_MS = 3_000;  // between answers; until one is given up, at the end
const MOST_KEPT = 2;  // recordings that wait for their answers, of some 80 MB
const CALM_MS = 500;  // after a click, or a change of the buttons, in which another click is the second of a double one
// Browsers clean sound for speech: echo and noise are removed, loudness is levelled. Music does not survive that.
const RAW = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};
const TAP = `registerProcessor('tap', class extends AudioWorkletProcessor {
  block = new Float32Array(${BLOCK});
  filled = 0;
  process([[samples]]) {
    if (!samples) return true;
    this.block.set(samples, this.filled);
    this.filled = (this.filled + samples.length) % ${BLOCK};
    if (!this.filled) this.port.postMessage(this.block);
    return true;
  }
})`;

const root = element.querySelector('.record');
const part = Object.fromEntries([...root.querySelectorAll('[data-part]')].map(node => [node.dataset.part, node]));
const media = navigator.mediaDevices;
const canHearTabs = Boolean(media?.getDisplayMedia) && media.getSupportedConstraints().suppressLocalAudioPlayback
  && document.featurePolicy?.allowsFeature('display-capture') !== false;  // else browsers share pictures alone
// What is being recorded; the passage of it that waits for its answer; how many were asked about, as the same answer
// would not be told twice; the last recording, and those that are not answered yet; when a button was touched or came.
let recording = null, asked = null, passages = 0, last = null, unanswered = [], touchedAt = -Infinity;

const pcm = samples => Int16Array.from(samples, sample => 32_767 * Math.max(-1, Math.min(1, sample)));

function show() {
  root.classList.toggle('going', Boolean(recording));
  part.microphone.hidden = Boolean(recording);
  part.tab.hidden = Boolean(recording) || !canHearTabs;
  for (const name of ['stop', 'time', 'course']) part[name].hidden = !recording;
  part.save.hidden = Boolean(recording) || !unanswered.length;
  for (const button of [part.microphone, part.tab]) button.disabled = false;
}

const sources = {
  microphone: () => media.getUserMedia({audio: RAW}),
  tab: () => media.getDisplayMedia({
    video: {frameRate: 1}, audio: {...RAW, suppressLocalAudioPlayback: false},
    selfBrowserSurface: 'exclude', systemAudio: 'include',
  }),
};

async function start(source) {
  part.fault.hidden = true;
  for (const button of [part.microphone, part.tab]) button.disabled = true;
  let stream = null, context = null;
  try {
    if (!media) throw new DOMException('', 'SecurityError');
    context = new AudioContext();  // before anything is waited for: some let a click alone start it
    context.resume();
    stream = await sources[source]();
    if (!stream.getAudioTracks().length) throw new DOMException('', 'NoSound');
    const address = URL.createObjectURL(new Blob([TAP], {type: 'text/javascript'}));
    await context.audioWorklet.addModule(address).catch(error => { throw new Error(error); })  // not as a device fails
      .finally(() => URL.revokeObjectURL(address));
    const tap = new AudioWorkletNode(context, 'tap', {numberOfOutputs: 0, channelCount: 1, channelCountMode: 'explicit'});
    tap.port.onmessage = ({data}) => hear(data);
    context.createMediaStreamSource(stream).connect(tap);
    for (const track of stream.getAudioTracks()) track.addEventListener('ended', finish);
    const rate = context.sampleRate, most = Math.min(props.most_seconds * rate, props.most_bytes / 2) / BLOCK;
    asked = null;
    recording = {stream, context, awake: stayAwake(), rate, most, blocks: [], levels: [], colours: [], asked_at: 0};
    touchedAt = performance.now();
    if (!unanswered.some(isPlayed)) window.songs.clear();
  } catch (error) {
    stream?.getTracks().forEach(track => track.stop());
    context?.close();
    if (source !== 'tab' || error.name !== 'NotAllowedError') explain(error, source);  // else it was only cancelled
  }
  show();
  (recording ? part.stop : part[source]).focus();
  const answer = document.querySelector('#answer').getBoundingClientRect();
  if (recording && answer.top > innerHeight / 2) root.scrollIntoView();  // the answer comes below
}

const stayAwake = () => navigator.wakeLock?.request('screen').catch(() => { /* then the screen goes dark */ });

// A browser lets the screen go dark, and may hear no more, once it has been out of sight.
document.addEventListener('visibilitychange', () => {
  if (!recording || document.hidden) return;
  recording.awake = stayAwake();
  recording.context.resume();
});
addEventListener('beforeunload', event => { if (recording || unanswered.length) event.preventDefault(); });

function explain(error, source) {
  const silent = message('No sound came along. Choose a tab, and share its sound.');
  const busy = message('The microphone is in use by another program, or the system keeps it from the browser.');
  const known = {
    NoSound: silent,
    SecurityError: message('Browsers record on pages with https, and on localhost, alone.'),
    ...source === 'tab' ? {NotFoundError: silent, NotReadableError: silent, AbortError: silent} : {
      NotAllowedError: message('The browser may not use the microphone. Allow it beside the address of the page.'),
      NotFoundError: message('There is no microphone.'), NotReadableError: busy, AbortError: busy,
    },
  };
  const said = known[error.name];
  if (!said) console.warn(error);
  part.fault.replaceChildren(said ?? message('The browser cannot record here: give the song as a file.'));
  part.fault.hidden = false;
}

// A block of samples has come.
function hear(block) {
  if (!recording) return;
  recording.blocks.push(pcm(block));
  recording.levels.push(block.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0));
  const [seconds, most] = [recording.blocks.length, recording.most].map(blocks => blocks * BLOCK / recording.rate);
  put(part.time, `${clock(seconds)} / ${clock(most)}`);
  draw();
  if (asked && performance.now() - asked.at > PATIENCE_MS) asked = null;
  if (recording.blocks.length >= recording.most) finish();
  else if (!asked && seconds >= recording.asked_at + EVERY_SECONDS) ask(seconds);
}

// Asks what the last seconds are, at the sample rate of the model.
async function ask(seconds) {
  const {rate, blocks} = recording, number = passages += 1;
  recording.asked_at = seconds;
  asked = {number, at: performance.now(), until: blocks.length};
  asked.promise = new Promise(resolve => { asked.resolve = resolve; });
  const passage = blocks.slice(-Math.floor(props.passage_seconds * rate / BLOCK)), n = passage.length * BLOCK;
  const resampler = new OfflineAudioContext(1, Math.floor(n * props.sample_rate / rate), props.sample_rate);
  const sound = resampler.createBuffer(1, n, rate);
  passage.forEach((block, i) => sound.copyToChannel(Float32Array.from(block, sample => sample / 32_767), 0, i * BLOCK));
  const source = new AudioBufferSourceNode(resampler, {buffer: sound});
  source.connect(resampler.destination);
  source.start();
  const samples = pcm((await resampler.startRendering()).getChannelData(0));
  let bytes = '';
  for (const byte of new Uint8Array(samples.buffer)) bytes += String.fromCharCode(byte);
  trigger('passage', {number, samples: btoa(bytes)});
}

function answered() {
  const {number, colour} = props.value ? JSON.parse(props.value) : {};
  if (!asked || number !== asked.number) return;
  if (recording) while (recording.colours.length < asked.until) recording.colours.push(colour);
  asked.resolve();
  asked = null;
}

// The sound so far as bars, the newest at the right, in the colours of the genres heard.
function draw() {
  const canvas = part.course, ratio = devicePixelRatio, {levels, colours} = recording;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio)) [canvas.width, canvas.height] = [width * ratio, height * ratio];
  const pen = canvas.getContext('2d'), ink = getComputedStyle(canvas).color;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const first = Math.max(0, levels.length - Math.floor(width / BAR));
  for (let i = first; i < levels.length; i++) {
    const tall = Math.max(1, Math.sqrt(levels[i]) * height);  // the root lets soft sounds be seen
    pen.fillStyle = colours[i] ?? ink;
    pen.fillRect((i - first) * BAR, (height - tall) / 2, BAR - 1, tall);
  }
}

// Ends the recording, which can be saved until it is answered, as if that fails or another song comes meanwhile.
function end() {
  const {stream, context, awake, blocks, rate} = recording;
  recording = null;
  touchedAt = performance.now();
  stream.getTracks().forEach(track => track.stop());
  context.close();
  awake?.then(lock => lock?.release());
  const now = new Date(), digits = number => String(number).padStart(2, '0');
  const name = `recording ${[now.getHours(), now.getMinutes(), now.getSeconds()].map(digits).join('-')}.wav`;
  last = new File([wavHeader(blocks.length * BLOCK, rate), ...blocks], name, {type: 'audio/wav'});
  unanswered = [...unanswered, last].slice(-MOST_KEPT);
  show();
}

function save() {
  const file = unanswered.shift();  // browsers may drop the second of two that are saved at once
  window.saveText(file, file.type, file.name);
  show();
  if (part.save.hidden) part.microphone.focus();
}

const isPlayed = file => document.querySelector('#song audio')?.src.endsWith(`/${encodeURI(file.name)}`);

// The recording becomes a song like any other, once no earlier answer can come in its way.
async function finish() {
  if (!recording) return;
  end();
  const ended = last, passage = asked;
  part.microphone.focus();
  if (passage) await Promise.race([passage.promise, new Promise(resolve => setTimeout(resolve, GRACE_MS))]);
  if (asked === passage) asked = null;  // else it is of the next recording
  window.songs.hand([ended]);
}

// The 44 bytes before `n` samples of a WAV file: PCM, mono, 16 bits.
function wavHeader(n, rate) {
  const view = new DataView(new ArrayBuffer(44));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, 'RIFF');
  view.setUint32(4, 36 + 2 * n, true);
  text(8, 'WAVEfmt ');
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, 'data');
  view.setUint32(40, 2 * n, true);
  return view;
}

root.addEventListener('click', event => {
  if (event.detail > 1 || performance.now() - touchedAt < CALM_MS) event.stopImmediatePropagation();
  touchedAt = performance.now();
}, true);
part.microphone.addEventListener('click', () => start('microphone'));
part.tab.addEventListener('click', () => start('tab'));
part.stop.addEventListener('click', finish);
part.save.addEventListener('click', save);
document.addEventListener('heard', () => {
  if (document.querySelector('#answer :is(.whole, .fault)')) unanswered = unanswered.filter(file => !isPlayed(file));
  show();
});
for (const name of ['loadedmetadata', 'error']) document.addEventListener(name, event => {  // another song has come
  if (!element.isConnected || !event.target.closest?.('#song')) return;
  part.fault.hidden = true;
  if (recording && !(last && isPlayed(last))) end();
  show();
}, true);
watch('value', answered);
show();
