// What the script of the page and those of its components begin with.

const html = (name, attributes = {}, ...children) => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};
const svg = (name, attributes = {}, ...children) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};
const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };  // maybe 60 times a second
const message = text => html('span', {'data-say': text}, text);
const clock = seconds => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, '0')}`;
const percent = share => `${Math.round(100 * share)}%`;
// How long a text is, in pixels, in the font of the page; and the size in which it fits into a picture.
const ruler = document.createElement('canvas').getContext('2d');
const lengthOf = (text, size, weight = 400) => {
  ruler.font = `${weight} ${size}px ${getComputedStyle(document.querySelector('.gradio-container')).fontFamily}`;
  return ruler.measureText(text).width;
};
const fitted = (text, size, width, weight) => size * Math.min(1, width / lengthOf(text, size, weight));
