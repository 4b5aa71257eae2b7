// OpenAI's client for JavaScript asks `cairn serve`: node chat.js URL WORDS TOOL; prints what it got as JSON.
import OpenAI, { APIError } from "openai";

const [url, words, tool] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: words }];
const tools = [JSON.parse(tool)];
const create = (more) => client.chat.completions.create({ model: "agent", messages, ...more });

const refused = async (more) => {
  try {
    await create(more);
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    return { kind: error.constructor.name, status: error.status, code: error.code, param: error.param, message: error.message };
  }
};

const whole = await create({ tools });
const [call] = whole.choices[0].message.tool_calls;
const result = { role: "tool", tool_call_id: call.id, content: "{}" };
const after = await client.chat.completions.create({
  model: "agent", messages: [...messages, whole.choices[0].message, result], tools, max_tokens: 8,
});
const words_alone = await create({ tool_choice: "none", seed: 3, temperature: 1, max_tokens: 12 });
let streamed = "", usage = null;
const options = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await create({ tool_choice: "none", seed: 3, temperature: 1, max_tokens: 12, ...options })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
const run = client.chat.completions.stream({ model: "agent", messages, tools });
const gathered = await run.finalChatCompletion();
const models = [];
for await (const one of client.models.list()) models.push(one.id);

console.log(JSON.stringify({
  whole, after, words: words_alone, streamed, usage, gathered: gathered.choices[0], models,
  unknown: await refused({ model: "other" }),
  long: await refused({ messages: [{ role: "user", content: "order ".repeat(700) }] }),
  wrong: await refused({ tool_choice: "required", tools }),
}));
