// Talking with a model over its page: Chromium's fake microphone says the same thing again and again.
//
// node live.mjs '{"url", "chromium", "clip", "shots", "modules"}'
import { drive, found, given, page, shot } from "./start.mjs";

const inside = () => page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);
const lines = (kind) => page.locator(`#said li.${kind}`);
const until = (work, ...rest) => page.waitForFunction(work, ...rest);

await drive(async () => {
  // on a phone: talk, and hear an answer
  await page.setViewportSize({ width: 390, height: 844 });
  await page.goto(`${given.url}/live`);
  await until(() => document.querySelector("#model option"));
  await shot("1-phone");
  await page.selectOption("#output", "speech");
  await page.click("#talk");
  await until(() => document.querySelector("#level").value > 0.05);
  await until(() => live?.playing.size > 0);
  found.turn = await lines("you").first().innerText();
  await shot("2-answer");

  // who talks again is listened to, and what is played ends
  await page.evaluate(() => {
    const listening = received.listening;
    received.listening = () => { listening(); window.played = live.playing.size; };
  });
  await until(() => window.played !== undefined);
  found.played = await page.evaluate(() => window.played);
  await until(() => document.querySelectorAll("#said li.you").length > 1);
  await until(() => document.querySelectorAll("#said li.answer").length > 0);
  found.spoken = await lines("answer").first().innerText();
  found.narrow = await inside();
  await page.click("#talk");
  found.stopped = await page.evaluate(() => live === null && document.querySelector("#talk").innerText);

  // write down what is said
  await page.selectOption("#task", "transcribe");
  await page.evaluate(() => document.querySelector("#said").replaceChildren());
  await page.click("#talk");
  await lines("answer").first().waitFor();
  found.written = await lines("answer").first().innerText();
  await shot("3-written");
  await page.click("#talk");

  // the same on the large page
  await page.setViewportSize({ width: 1280, height: 960 });
  await page.goto(given.url);
  await page.locator("#live button").first().click();
  const frame = page.frameLocator("#live iframe");
  await frame.locator("#talk").click();
  await frame.locator("#said li.you").first().waitFor();
  found.within = await frame.locator("#said li.you").first().innerText();
  await shot("4-page");
});
