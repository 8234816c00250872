// A page in a real Chromium, and what is found out about it: requests to elsewhere, errors, pictures.
import { createRequire } from "node:module";
import { join } from "node:path";

export const given = JSON.parse(process.argv[2]);
const { chromium } = createRequire(join(given.modules, "package.json"))("playwright-core");
export const SECONDS = 1000;
export const found = { outside: [], errors: [] };
let step = "start";

const browser = await chromium.launch({
  executablePath: given.chromium,
  args: [
    "--no-sandbox", // tests run as root in containers; the page is our own
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    `--use-file-for-fake-audio-capture=${given.clip ?? ""}`,
  ],
});
export const page = await browser.newPage({ viewport: { width: 1280, height: 960 } });
page.setDefaultTimeout(60 * SECONDS);
page.on("request", (request) => {
  const own = [given.url, "data:", "blob:"].some((start) => request.url().startsWith(start));
  if (!own) found.outside.push(request.url());
});
page.on("pageerror", (error) => {
  if (error.name !== "AbortError") found.errors.push(String(error)); // waveforms that are replaced while they load
});

export const shot = (name) => {
  step = name;
  return page.screenshot({ path: join(given.shots, `${name}.png`), fullPage: true });
};
export const toasts = () => page.locator(".toast-body").allInnerTexts();

// Whether the player of `selector` has sound: its length and its loudest sample.
export const heard = async (selector) => {
  const source = await page.getAttribute(`${selector} a[download]`, "href");
  return page.evaluate(async (url) => {
    const bytes = await (await fetch(url)).arrayBuffer();
    const player = new Audio(url);
    const playable = new Promise((done) => {
      player.oncanplaythrough = () => done(true);
      player.onerror = () => done(false);
    });
    player.load();
    const context = new OfflineAudioContext(1, 16000, 16000);
    const decoded = await context.decodeAudioData(bytes);
    const loudest = decoded.getChannelData(0).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    return { playable: await playable, seconds: decoded.duration, loudest };
  }, source);
};

// Do what a person does; print what was found as one JSON object.
export const drive = async (person) => {
  try {
    await person();
  } catch (error) {
    found.failed = `after "${step}": ${error}; messages on the page: ${await toasts().catch(() => "none read")}`;
    await shot("failed").catch(() => {});
  } finally {
    await browser.close();
  }
  console.log(JSON.stringify(found));
};
