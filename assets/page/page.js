// What holds for the whole page: languages, light and dark, saving pictures, pasting and dropping songs.
// The codes of LANGUAGES, TRANSLATIONS by language and English text, the English TABS, MOST_BYTES of an upload, and the
// names of SERVICE_FOLDERS stand before it.
(() => {
  // Languages. Fixed text is English in the page, marked with data-say, and is put into the language of <html lang>,
  // which Gradio keeps, when it appears or the language changes.
  const primary = lang => lang.toLowerCase().split('-')[0];
  const spoken = lang => LANGUAGES.find(code => primary(code) === primary(lang));
  const dictionary = () => TRANSLATIONS[primary(document.documentElement.lang)];
  const translate = message => {
    const words = dictionary();
    if (words && !Object.hasOwn(words, message)) console.error(`"${message}" is not translated`);
    return words?.[message] ?? message;
  };
  const AWAY = {say: 'The server is away just now. When it is back, this page begins anew: give your songs again then.'};
  const STAYED = {say: 'This page has lost the server and has to be loaded anew: save the recording, or download the table of your songs, before that.'};
  const STAYED_MS = 2_000;  // after which a page that was to begin anew has been kept by its visitor
  const BROKE_OFF = {say: 'The upload broke off: give the song again.'};
  const RECORDING_BROKE_OFF = {say: 'The upload broke off: give the song again. "Save the recording" keeps what was recorded.'};
  const FIELDS = ['#song', '#files', '#folder'];
  const isSending = field => document.querySelector(`${field} .uploading`);
  let sending = [];  // the fields that were at the last change of the page
  let away = null;  // what is said from then on when Gradio has lost the server, as it asks for nothing more
  const lose = said => [REFUSED, LARGE].forEach(place => tell(place, away = said));
  const trouble = text => {  // as Gradio tells them; after the first it begins the page anew when the server is back
    if (away) return;
    if (text.startsWith('Connection to')) lose(AWAY);
    if (!text.startsWith('Connection errored')) return;
    const isRecording = document.querySelector('#record [data-part=save]:not([hidden])');
    for (const field of sending.filter(field => !isSending(field)))
      tell(placeOf(field), field === '#song' && isRecording ? RECORDING_BROKE_OFF : BROKE_OFF);
  };
  addEventListener('beforeunload', () => { if (away) setTimeout(lose, STAYED_MS, STAYED); });
  const MEGABYTES = Math.floor(MOST_BYTES / 2 ** 20);
  const TOO_LARGE = {say: '{names} is larger than {megabytes} MB: save it as mp3, or only a part of it, first.', megabytes: MEGABYTES};
  const LEFT_OUT = {say: 'Left out, as they are larger than {megabytes} MB: {names}', megabytes: MEGABYTES};
  const TURNING = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;  // as in crnn.terminal: no name may turn a sentence
  const BLOCK_OF_A_NET = /^(.+), block (\d+)$/;
  const original = text =>  // of a tab in any of the languages: other texts may be the same in one of them
    TABS.find(tab => Object.values(TRANSLATIONS).some(words => words[tab] === text)) ?? text;
  const sayAll = root => {
    if (!(root instanceof Element)) return;
    const all = selector => [...(root.matches(selector) ? [root] : []), ...root.querySelectorAll(selector)];
    for (const node of all('[data-say]')) {  // some values have words of their own in a language, as "kind: rock" has
      const value = name => dictionary()?.[`${name}: ${node.dataset[name]}`] ?? node.dataset[name] ?? '';
      put(node, translate(node.dataset.say).replace(/\{(\w+)\}/g, (_, name) => value(name)));
    }
    for (const node of all('[data-say-label]')) say(node, node.dataset.sayLabel, 'aria-label');
    for (const node of all('#card, #client')) node.lang = 'en';
    for (const node of all('#song audio')) say(node, 'Song', 'aria-label');
    for (const node of all('footer[aria-label]')) say(node, 'API', 'aria-label');
    for (const node of all('.uploading')) put(node, translate('Uploading …'));
    for (const node of all('[data-testid=toast-text]')) trouble(node.textContent);
    for (const node of all('.figure svg text')) {
      if (node.textContent !== node.dataset.said) node.dataset.original = node.textContent;  // it is new here
      const text = node.dataset.original.trim(), words = dictionary(), [, net, number] = text.match(BLOCK_OF_A_NET) ?? [];
      const has = key => words && Object.hasOwn(words, key);  // a genre may be called "constructor"
      if (number && has('block 1')) put(node, `${net}, ${words['block 1'].replace('1', number)}`);
      else put(node, has(text) ? words[text] : node.dataset.original);
      node.dataset.said = node.textContent;
    }
    for (const or of all('[data-testid=upload-text] .or')) {  // Gradio's words, like those of tabs
      put(or.previousSibling, `${translate(or.closest('#song') ? 'Drop Audio Here' : 'Drop File Here')} `);
      put(or, translate('- or -'));
      put(or.nextSibling, ` ${translate('Click to Upload')}`);
    }
    for (const node of all('[role=tab], .overflow-dropdown button'))  // which Gradio translates only as they appear
      if (node.firstChild?.data) put(node.firstChild, translate(original(node.firstChild.data.trim())));
  };
  window.say = (node, message, attribute) => {
    const text = translate(message);
    if (node.getAttribute(attribute) !== text) node.setAttribute(attribute, text);
  };
  const speak = async locale => {  // Gradio's own texts, too; its interface keeps the function for its settings
    const module = performance.getEntriesByType('resource').find(entry => /\/core-[\w-]+\.js$/.test(entry.name));
    try {
      (await import(module.name)).changeLocale(locale);
    } catch {
      document.documentElement.lang = locale;
    }
  };

  // Choices last beyond the visit where the browser lets them.
  const remember = (key, value) => { try { localStorage.setItem(`genre-crnn-${key}`, value); } catch { /* private */ } };
  const remembered = key => { try { return localStorage.getItem(`genre-crnn-${key}`); } catch { return null; } };

  const setTheme = dark => {
    document.body.classList.toggle('dark', dark);
    document.body.style.background = 'var(--body-background-fill)';
    document.querySelector('#theme')?.setAttribute('aria-pressed', dark);
  };

  const prepare = () => {
    const asked = new URLSearchParams(location.search).get('__theme');
    const theme = asked ?? remembered('theme');
    if (theme === 'dark' || theme === 'light') setTheme(theme === 'dark');
    // Not what Gradio has found, which is English where it does not know the first of them.
    const language = remembered('language') ?? navigator.languages.map(spoken).find(Boolean) ?? 'en';
    if (language !== document.documentElement.lang) speak(language);
    sayAll(document.body);
  };
  const settle = () => {
    const select = document.querySelector('#language'), language = spoken(document.documentElement.lang) ?? 'en';
    if (select && select.value !== language) select.value = language;
    document.querySelector('#theme')?.setAttribute('aria-pressed', document.body.classList.contains('dark'));
  };

  // What has come, in one sentence for those who listen to the page; answers to passages of a recording are too many.
  const NEWS = ['#answer .whole', '#reasons', '#status', '#told'];
  const said = new Map();
  const announce = () => {
    for (const selector of NEWS) {
      const node = document.querySelector(selector), before = said.get(selector);
      const words = [...node?.querySelectorAll('.verdict, .hint') ?? []].slice(0, 2).map(part => part.textContent.trim()).join('. ');
      if (before?.node === node && before.words === words) continue;
      said.set(selector, {node, words});
      const announcer = document.querySelector('#announcer');
      if (words) announcer.replaceChildren(words);  // the same words of the next song are news, too
      else if (before && announcer?.textContent === before.words) announcer.replaceChildren();
    }
  };

  new MutationObserver(changes => {
    for (const {type, target, addedNodes} of changes) {
      if (type === 'childList') addedNodes.forEach(sayAll);
      else if (type === 'characterData') sayAll(target.parentElement?.closest('[data-say], text, [role=tab], [data-testid=upload-text]'));
      else if (target.dataset.sayLabel) say(target, target.dataset.sayLabel, 'aria-label');  // Gradio takes it away
    }
    sending = FIELDS.filter(isSending);
    settle();
    announce();
    goOn();
  }).observe(document.body, {
    childList: true, characterData: true, subtree: true, attributes: true, attributeFilter: ['aria-label'],
  });
  new MutationObserver(() => {
    sayAll(document.body);
    settle();
  }).observe(document.documentElement, {attributes: true, attributeFilter: ['lang']});

  document.addEventListener('change', event => {
    if (event.target.id !== 'language') return;
    remember('language', event.target.value);
    speak(event.target.value);
  });
  // Where the keyboard goes on when a button has done its work and disappears.
  const NEXT = {
    '#stop-why': '#view [data-part=why]', '#stop-sound': '#sound button', '#stop-inside': '#inside-tab-button',
    '#stop-many': '#songs [data-part=table]', '#songs tbody button': '#listen-tab-button',
  };
  // A field of songs takes a moment: the keyboard goes to what is there then, if it has gone nowhere meanwhile.
  let lost = null;
  const goOn = () => {
    if (lost && document.activeElement === document.body) document.querySelector(`${lost} :is(audio, .upload-container)`)?.focus({preventScroll: true});
  };
  document.addEventListener('focusin', () => { lost = null; });
  document.addEventListener('click', event => {
    if (event.target.closest('.icon-button-wrapper')) lost = FIELDS.find(field => event.target.closest(field));
  }, true);
  document.addEventListener('click', event => {
    for (const [gone, next] of Object.entries(NEXT))
      if (event.target.closest(gone)) document.querySelector(next)?.focus();
    if (event.target.closest('#theme')) {
      const dark = !document.body.classList.contains('dark');
      setTheme(dark);
      remember('theme', dark ? 'dark' : 'light');
      const address = new URL(location);
      address.searchParams.delete('__theme');  // or it would count more than what is remembered
      history.replaceState(history.state, '', address);
    }
    const format = event.target.closest('[data-save]')?.dataset.save;
    if (format) {
      const figure = event.target.closest('figure');
      const ofSong = figure.closest('#sound-figures, #inside-figures');
      const titles = [...ofSong ? [document.querySelector('#view [data-part=name]')] : [], figure.querySelector('h2')]
        .map(node => node.textContent);
      savePicture(figure.querySelector('svg'), titles.join(' – '), format, titles);
    }
  });

  // Saving: an SVG as it looks here, in the colours of the theme, with titles over it if it has none.
  const TITLE = {size: 14, height: 20, room: 10};  // px, the last of them around them all
  const download = (blob, name) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = name.replace(/[\\/:*?"<>|\x00-\x1f]+/g, ' ').trim();
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  };
  window.saveText = (text, type, name) => download(new Blob([text], {type}), name);
  window.pictureOf = async (original, format, titles = []) => {
    const picture = original.cloneNode(true), box = original.viewBox.baseVal;
    const width = box?.width || parseFloat(original.getAttribute('width'));
    const top = titles.length && titles.length * TITLE.height + TITLE.room;
    const height = (box?.height || parseFloat(original.getAttribute('height'))) + top;
    const style = getComputedStyle(document.querySelector('.gradio-container'));
    picture.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
    picture.setAttribute('style', `color: ${style.color}; font-family: ${style.fontFamily}`);
    picture.setAttribute('width', width);
    picture.setAttribute('height', height);
    picture.setAttribute('viewBox', `${box?.x ?? 0} ${(box?.y ?? 0) - top} ${width} ${height}`);
    picture.prepend(
      svg('rect', {y: -top, width: '100%', height: '100%', fill: getComputedStyle(document.body).backgroundColor}),
      ...titles.map((title, i) => svg('text', {
        x: 4, y: (i + 1) * TITLE.height - top, 'font-size': fitted(title, TITLE.size, width - 8, 600), 'font-weight': 600,
        fill: 'currentColor',
      }, title)),
    );
    const source = new Blob([new XMLSerializer().serializeToString(picture)], {type: 'image/svg+xml'});
    if (format === 'svg') return source;
    const image = new Image(), scale = Math.min(2, 16_000 / width), reader = new FileReader();
    await new Promise(resolve => {
      reader.onload = resolve;
      reader.readAsDataURL(source);
    });
    image.src = reader.result;
    await image.decode();
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [width * scale, height * scale];
    canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
    return new Promise(resolve => canvas.toBlob(resolve, 'image/png'));
  };
  window.savePicture = async (original, name, format, titles) =>
    download(await pictureOf(original, format, titles), `${name}.${format}`);

  // As a disk gives the files of a folder in no order.
  const byName = path => (a, b) => a[path].localeCompare(b[path], undefined, {numeric: true});
  const files = all => {
    const transfer = new DataTransfer();
    for (const file of all) transfer.items.add(file);
    return transfer.files;
  };

  // A song that is recorded, or pasted or dropped anywhere, goes where a chosen file would go; several go to the list.
  // A song that is in the way there is closed first.
  const clear = () => document.querySelector('#song .icon-button-wrapper button')?.click();
  const hand = (songs, field = songs.length === 1 ? '#song' : '#files', tries = 10) => {
    document.querySelector(field === '#song' ? '#listen-tab-button' : '#songs-tab-button')?.click();
    tell(REFUSED, null);
    if (field === '#song' && !fitting(songs, field).length) return;  // so that nothing is closed for it
    const input = document.querySelector(`${field} input[type=file]`);
    if (input) {
      input.files = files(songs);
      input.dispatchEvent(new Event('change', {bubbles: true}));
      return;
    }
    if (field === '#song') clear();
    const isBusy = document.querySelector(`${field} .uploading`);  // with another song, however long that takes
    if (tries) setTimeout(() => hand(songs, field, isBusy ? tries : tries - 1), 200);
  };
  // On a small screen the answer comes below its edge.
  const reveal = (told = document.querySelector('#answer :is(.whole, .fault)')) => {
    if (!told || told.getBoundingClientRect().top < innerHeight / 2) return;
    const behavior = matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth';
    told.scrollIntoView({block: 'nearest', behavior});
  };
  const follow = () => {  // whoever looks at how it works while a song is heard sees it of that song
    if (document.getElementById('inside-figures')?.offsetParent) document.getElementById('inside-again').click();
  };
  window.songs = {clear, hand, isAway: () => Boolean(away)};
  document.addEventListener('heard', () => {  // a song, or another has come
    reveal();
    follow();
  });
  document.addEventListener('paste', event => {
    const pasted = [...event.clipboardData?.files ?? []];
    const isText = event.target.closest?.('input, textarea') && event.clipboardData.types.includes('text/plain');
    if (!pasted.length || isText) return;  // cells of a table come with a picture of them
    event.preventDefault();
    hand(pasted);
  });
  const isPassedOver = folder => /^\.(?!\.)/.test(folder) || SERVICE_FOLDERS.includes(folder.toLowerCase());  // as by crnn.walk
  // Else the browser would leave the page, and Gradio's own fields take a folder for a file.
  const filesIn = async entry => {
    const told = ask => new Promise((resolve, reject) => ask.call(entry, resolve, reject)).catch(() => []);
    if (entry.isFile) return [await told(entry.file)].flat();
    const reader = entry.createReader(), found = [];
    for (let some = [null]; some.length;) found.push(...some = await told(reader.readEntries.bind(reader)));
    const kept = found.filter(one => one.isFile || !isPassedOver(one.name));
    return (await Promise.all(kept.sort(byName('fullPath')).map(filesIn))).flat();
  };
  for (const name of ['dragover', 'drop']) {
    document.addEventListener(name, event => {
      if (!event.dataTransfer?.types.includes('Files')) return;
      event.preventDefault();
      if (name !== 'drop') return;
      event.stopPropagation();
      const all = [...event.dataTransfer.files], isOfMany = event.target.closest('#files, #folder');
      const entries = [...event.dataTransfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean);
      if (entries.some(entry => entry.isDirectory))
        Promise.all(entries.map(filesIn)).then(found => found.flat().length ? hand(found.flat(), '#files') : tellOfNothing());
      else if (all.length) hand(all, isOfMany ? '#files' : undefined);
    }, true);
  }

  // Where is told what the server does not hear of; null ends that, unless the server is lost.
  const REFUSED = '#refused .fault', LARGE = '#songs [data-part=large]';
  const placeOf = field => field === '#song' ? REFUSED : LARGE;
  const tell = (selector, said) => {
    const node = document.querySelector(selector);
    said ??= away;
    if (!node) return;
    node.hidden = !said;
    Object.assign(node.dataset, said);
    sayAll(node);
    if (said) reveal(node);
  };
  const tellOfNothing = () => {
    const isAtSongs = document.querySelector('#songs')?.offsetParent;
    if (!isAtSongs) document.querySelector('#listen-tab-button')?.click();
    tell(isAtSongs ? LARGE : REFUSED, {say: 'There is no file in this folder that can be read.'});
  };
  // One file that is too large would make Gradio refuse all that were chosen with it, in words that soon go.
  const fitting = (all, field) => {
    const fit = all.filter(file => file.size <= MOST_BYTES), large = all.filter(file => !fit.includes(file));
    const said = {...field === '#song' ? TOO_LARGE : LEFT_OUT, names: large.map(file => file.name.replace(TURNING, '')).join(', ')};
    tell(placeOf(field), large.length ? said : null);
    return fit;
  };
  document.addEventListener('change', event => {
    const input = event.target, field = FIELDS.find(id => input.matches?.(`${id} input[type=file]`));
    if (!field) return;
    if (input.parentElement.matches(':focus')) lost = field;
    const all = [...input.files].filter(file => !file.webkitRelativePath.split('/').slice(1, -1).some(isPassedOver));
    const fit = fitting(all, field);
    if (field === '#folder') fit.sort(byName('webkitRelativePath'));
    else if (fit.length === all.length) return;
    if (input.files.length && !all.length) tellOfNothing();
    input.files = files(fit);
    if (!fit.length) event.stopImmediatePropagation();
  }, true);
  document.addEventListener('loadstart', ({target}) => {
    if (target.closest?.('#song')) tell(REFUSED, null);
  }, true);

  // The second click of a double one on a song's cross meets the field that comes in its place, and would choose a file.
  document.addEventListener('click', event => {
    if (event.detail < 2 || !event.target.closest(':is(#song, #files, #folder) .upload-container')) return;
    event.preventDefault();
    event.stopPropagation();
  }, true);

  // A video is heard like any sound, and so is much that a browser does not know, but Gradio's field takes sounds only.
  document.addEventListener('click', () => {
    const input = document.querySelector('#song input[type=file]');
    if (input && !input.accept.includes('video')) input.accept += ',video/*';
  }, true);
  document.addEventListener('change', event => {
    if (!event.target.matches?.('#song input[type=file]')) return;
    const all = [...event.target.files];
    if (all.every(file => file.type.startsWith('audio/'))) return;
    const typed = ({type}) => /^(audio|video)\//.test(type) ? type.replace('video/', 'audio/') : 'audio/mpeg';
    event.target.files = files(all.map(file => new File([file], file.name, {type: typed(file)})));
  }, true);

  prepare();
  settle();
})();
