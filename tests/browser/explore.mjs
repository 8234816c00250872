// The page over a lake in a real Chromium: what a person does, and what they then see.
//
// node explore.mjs '{"url", "chromium", "shots", "modules"}'
import { drive, found, given, heard, page, shot, toasts } from "./start.mjs";

const where = () => page.locator("#where textarea, #where input").inputValue();
const until = async (text) => {
  await page.waitForFunction((wanted) => document.querySelector("#where textarea, #where input")?.value === wanted, text);
};
const filter = async (conditions) => {
  await page.fill("#conditions textarea, #conditions input", conditions);
  await page.click("#conditions button");
};
// Tables have a hidden copy of their first row, which gives the columns their widths.
const click = (table, text) => page.locator(table).getByText(text).locator("visible=true").first().click();
const inside = () => page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);

await drive(async () => {
  await page.goto(given.url);
  await until("1 to 12 of 12 rows");
  found.about = await page.locator("#about").innerText();
  await shot("1-rows");

  // filter, and a filter that cannot be read
  await filter("speaker = s1 and duration > 0.7");
  await until("1 to 5 of 5 rows");
  await filter("nonsense > 1");
  await page.locator(".toast-body", { hasText: "there is no column" }).waitFor();
  found.refused = (await toasts()).join(" ");
  await shot("2-filter");
  await filter("duration > 0.7");
  await until("1 to 8 of 8 rows");
  await page.click("#measure");
  await page.waitForSelector("#histogram img");
  await shot("3-histogram");

  // see and hear a segment, and its units
  await click("#listed", /^word 5 /);
  await page.waitForSelector("#figure img");
  await page.waitForSelector("#sound [data-testid^=waveform] >> visible=true");
  found.heading = await page.locator("#heading").innerText();
  found.sound = await heard("#sound");
  await page.click("#speak");
  await page.waitForSelector("#spoken [data-testid^=waveform] >> visible=true");
  found.spoken = await heard("#spoken");
  await shot("4-segment");

  // rejected rows by reason, and a copy beside the row that is kept
  await page.getByRole("tab", { name: "Rejected" }).click();
  await click("#reasons", "the same speech");
  await until("1 to 1 of 1 rows");
  await click("#listed", /it is a copy of/);
  await page.waitForSelector("#kept-sound [data-testid^=waveform] >> visible=true");
  found.rejected = await page.locator("#heading").innerText();
  found.kept = await page.locator("#kept").innerText();
  await shot("5-copies");

  // two snapshots
  await page.click("#table input");
  await page.getByRole("option", { name: "audio of small" }).click();
  await until("1 to 12 of 12 rows");
  await page.getByRole("tab", { name: "Compare" }).click();
  await page.click("#compare");
  await page.waitForSelector("#difference table");
  found.difference = await page.locator("#difference").innerText();
  await shot("6-compare");

  // a phone: nothing is wider than it, and a click leads to the segment
  await page.getByRole("tab", { name: "Rows" }).click();
  await page.setViewportSize({ width: 390, height: 844 });
  await page.reload();
  await until("1 to 12 of 12 rows");
  found.narrow = await inside();
  await click("#listed", /^word 1 /);
  await page.waitForSelector("#figure img");
  await page.waitForFunction(() => Math.abs(document.querySelector("#segment").getBoundingClientRect().top) < 200);
  found.still = await inside();
  found.where = await where();
  await shot("7-phone");
});
