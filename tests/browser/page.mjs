// The page in a real Chromium: what a person does, and what they then see. Prints one JSON object.
//
// node page.mjs '{"url", "chromium", "clip", "corrupt", "huge", "shots", "modules"}'
import { createRequire } from "node:module";
import { join } from "node:path";

const given = JSON.parse(process.argv[2]);
const { chromium } = createRequire(join(given.modules, "package.json"))("playwright-core");
const SECONDS = 1000;
const found = { outside: [], errors: [] };

const browser = await chromium.launch({
  executablePath: given.chromium,
  args: [
    "--no-sandbox", // tests run as root in containers; the page is our own
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    `--use-file-for-fake-audio-capture=${given.clip}`,
  ],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 960 } });
page.setDefaultTimeout(60 * SECONDS);
page.on("request", (request) => {
  const own = [given.url, "data:", "blob:"].some((start) => request.url().startsWith(start));
  if (!own) found.outside.push(request.url());
});
page.on("pageerror", (error) => {
  if (error.name !== "AbortError") found.errors.push(String(error)); // waveforms that are replaced while they load
});

let step = "start";
const shot = (name) => {
  step = name;
  return page.screenshot({ path: join(given.shots, `${name}.png`), fullPage: true });
};
const answer = () => page.inputValue("#answer textarea");
const turns = () => page.locator("#chat .message-content, #chat [data-testid=waveform-Audio]").count();
const until = (work, ...rest) => page.waitForFunction(work, ...rest);
const toasts = () => page.locator(".toast-body").allInnerTexts();
const upload = (file) => page.setInputFiles("#audio input[type=file]", file);
const toast = async (words) => {
  const refused = page.locator(".toast-body", { hasText: words }).first();
  await refused.waitFor();
  return refused.innerText();
};
const ask = async () => {
  await page.click("#ask");
  await page.waitForSelector("#ask:not([disabled])");
};

try {
  await page.goto(given.url);
  await page.waitForSelector("#ask");
  await page.waitForTimeout(500);
  await shot("1-empty");

  // type, get text
  await page.click("#output >> text=text");
  await page.fill("#text textarea", "press one");
  await ask();
  await until(() => document.querySelector("#answer textarea").value.length > 0);
  found.text = await answer();
  await shot("2-text");

  // upload a clip, get speech that can be played
  await page.click("#clear");
  await page.click("#output >> text=speech");
  await page.click("#audio button[aria-label='Upload file']");
  await upload(given.clip);
  await page.waitForSelector("#chat [data-testid=waveform-Audio]");
  await ask();
  await page.waitForSelector("#heard [data-testid^=waveform] >> visible=true");
  await page.waitForSelector("#plot img");
  const source = await page.getAttribute("#heard a[download]", "href");
  found.speech = await page.evaluate(async (url) => {
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
  found.tokens = await page.inputValue("#tokens textarea");
  found.plot = await page.evaluate(() => document.querySelector("#plot img").naturalWidth);
  await shot("3-speech");

  // click an example, which chooses its task; the model's own evaluation says that it is no good at that
  await page.click("#clear");
  await page.locator("#clickable").getByText("hold the line", { exact: false }).first().click();
  await until(() => document.querySelector("#ask").innerText === "Transcribe");
  await page.waitForSelector("#chat [data-testid=waveform-Audio]");
  found.doubt = await page.locator("#doubt").innerText();
  await shot("3b-example");
  await page.click("#task >> text=Free");
  await page.waitForFunction(() => !document.querySelector("#doubt")?.innerText.includes("not shown"));

  // refuse what is no recording, and what is too large
  const before = await turns();
  await upload(given.corrupt);
  found.corrupt = await toast("cannot be used");
  await shot("4-corrupt");
  await upload(given.huge);
  found.huge = await toast(/exceed|larger than/);
  await shot("5-huge");
  found.kept = (await turns()) === before;

  // record, transcribe
  await page.click("#clear");
  await page.click("#task >> text=Transcribe");
  await page.click("#audio button[aria-label='Record audio']");
  await page.click("#audio >> text=Record");
  await page.waitForTimeout(1.2 * SECONDS);
  await page.locator("#audio button:visible", { hasText: "Stop" }).first().click();
  await page.waitForSelector("#chat [data-testid=waveform-Audio]");
  await page.evaluate(() => (window.before = document.querySelector("#answer textarea").value));
  await ask();
  // what the microphone gave decides whether the answer is empty, which is said, too
  await until(() => document.querySelector("#answer textarea").value || document.querySelector("#silent").innerText);
  found.transcript = (await answer()) || (await page.locator("#silent").innerText());
  await shot("6-transcript");

  // classify with labels
  await page.click("#task >> text=Classify");
  await until(() => document.querySelector("#ask").innerText === "Classify");
  await page.fill("#labels textarea, #labels input", "one, two");
  await ask();
  await until(() => ["one", "two"].includes(document.querySelector("#answer textarea").value));
  found.label = await answer();
  await shot("7-label");
} catch (error) {
  found.failed = `after "${step}": ${error}; messages on the page: ${await toasts().catch(() => "none read")}`;
  await shot("failed").catch(() => {});
} finally {
  await browser.close();
}
console.log(JSON.stringify(found));
