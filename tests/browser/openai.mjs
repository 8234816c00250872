// OpenAI's own JavaScript client, unchanged but for the address. Prints one JSON object of what it got.
//
// node openai.mjs '{"url", "clip", "modules"}'
import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

const given = JSON.parse(process.argv[2]);
const OpenAI = createRequire(join(given.modules, "package.json"))("openai");
const client = new OpenAI({ baseURL: `${given.url}/v1`, apiKey: given.token ?? "none" });
const found = {};
const { data } = await client.models.list();
const model = data[0].id;
const messages = [{ role: "user", content: "press one" }];
const chat = (more) => client.chat.completions.create({ model, messages, max_tokens: 20, ...more });

found.text = (await chat()).choices[0].message.content;
found.streamed = "";
for await (const chunk of await chat({ stream: true })) found.streamed += chunk.choices[0].delta.content ?? "";

const audio = (await readFile(given.clip)).toString("base64");
const heard = [{ role: "user", content: [{ type: "input_audio", input_audio: { data: audio, format: "wav" } }] }];
found.heard = (await chat({ messages: heard })).choices[0].message.content;
const answer = await chat({ modalities: ["audio"], audio: { voice: "alloy", format: "mp3" } });
found.spoken = answer.choices[0].message.audio.data.length;

const speech = await client.audio.speech.create({ model, voice: "alloy", input: "press one", response_format: "flac" });
found.flac = Buffer.from(await speech.arrayBuffer()).subarray(0, 4).toString();
const transcribe = (more) => client.audio.transcriptions.create({ model, file: createReadStream(given.clip), ...more });
found.transcript = (await transcribe()).text;
found.subtitles = await transcribe({ response_format: "vtt" });

const refused = await chat({ n: 3 }).catch((error) => error);
found.refused = { status: refused.status, param: refused.param, code: refused.code, kind: refused.constructor.name };
console.log(JSON.stringify(found));
