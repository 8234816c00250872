// The page in a real Chromium: what a person does, and what they then see. Prints one JSON object.
//
// node page.mjs '{"url", "chromium", "clip", "corrupt", "huge", "shots", "modules"}'
import { SECONDS, drive, found, given, heard, page, shot, toasts } from "./start.mjs";

const answer = () => page.inputValue("#answer textarea");
const turns = () => page.locator("#chat .message-content, #chat [data-testid=waveform-Audio]").count();
const until = (work, ...rest) => page.waitForFunction(work, ...rest);
const upload = (file) => page.setInputFiles("#audio input[type=file]", file);
const toast = async (words) => {
  const refused = page.locator(".toast-body", { hasText: words }).first();
  await refused.waitFor();
  return refused.innerText();
};
// The button cannot be clicked while an answer is made, so an answer ends where it can be clicked again.
const ask = async () => {
  const answered = page.evaluate(
    () =>
      new Promise((done) => {
        const button = document.querySelector("#ask");
        let busy = false;
        const changed = () => {
          if (button.disabled) busy = true;
          else if (busy) done();
        };
        new MutationObserver(changed).observe(button, { attributes: true });
      }),
  );
  await page.click("#ask");
  await answered;
};

const clear = async () => {
  await page.click("#clear");
  await until(() => !document.querySelector("#chat .message-content, #chat [data-testid=waveform-Audio]"));
};

await drive(async () => {
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
  await clear();
  await page.click("#output >> text=speech");
  await page.click("#audio button[aria-label='Upload file']");
  await upload(given.clip);
  await page.waitForSelector("#chat [data-testid=waveform-Audio]");
  await ask();
  await page.waitForSelector("#heard [data-testid^=waveform] >> visible=true");
  await page.waitForSelector("#plot img");
  found.speech = await heard("#heard");
  found.tokens = await page.inputValue("#tokens textarea");
  found.plot = await page.evaluate(() => document.querySelector("#plot img").naturalWidth);
  await shot("3-speech");

  // click an example, which chooses its task; the model's own evaluation says that it is no good at that
  await clear();
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
  await clear();
  await page.click("#task >> text=Transcribe");
  await page.click("#audio button[aria-label='Record audio']");
  await page.click("#audio >> text=Record");
  await page.waitForTimeout(1.2 * SECONDS);
  await page.locator("#audio button:visible", { hasText: "Stop" }).first().click();
  await page.waitForSelector("#chat [data-testid=waveform-Audio]");
  await ask();
  // what the microphone gave decides whether the answer is empty, which is said, too
  await until(() => document.querySelector("#answer textarea").value || document.querySelector("#silent").innerText);
  found.transcript = (await answer()) || (await page.locator("#silent").innerText());
  await shot("6-transcript");

  // classify with labels: the clip alone, since a long recording and its transcript might not leave room for labels
  await clear();
  await page.click("#audio button[aria-label='Upload file']");
  await upload(given.clip);
  await page.waitForSelector("#chat [data-testid=waveform-Audio]");
  await page.click("#task >> text=Classify");
  await until(() => document.querySelector("#ask").innerText === "Classify");
  await page.fill("#labels textarea, #labels input", "one, two");
  await ask();
  await until(() => ["one", "two"].includes(document.querySelector("#answer textarea").value));
  found.label = await answer();
  await shot("7-label");
});
