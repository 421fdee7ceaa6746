// The same server through OpenAI's own package for Node. Prints one line of JSON for each call.
//   node client.mjs http://127.0.0.1:8000 MODEL [EMBEDDING_SERVER KEY]
import OpenAI from "openai";

const [server, model, embeddingServer, embeddingKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${server}/v1`, apiKey: "none", maxRetries: 0, timeout: 60_000 });
const messages = [{ role: "user", content: "What is TTFT?" }];
const common = { model, temperature: 0 };

async function call(endpoint, work) {
  const begin = performance.now();
  const [answer, tokens] = await work();
  console.log(JSON.stringify({ endpoint, answer, tokens, ms: performance.now() - begin }));
}

await call("GET /v1/models", async () => {
  const names = [];
  for await (const found of client.models.list()) names.push(found.id);
  return [names.join(", "), 0];
});

await call("POST /v1/chat/completions", async () => {
  const answer = await client.chat.completions.create({ ...common, messages, max_tokens: 40 });
  return [answer.choices[0].message.content, answer.usage.completion_tokens];
});

await call("POST /v1/chat/completions, streamed", async () => {
  const options = { stream: true, stream_options: { include_usage: true } };
  const stream = await client.chat.completions.create({ ...common, messages, max_tokens: 40, ...options });
  let text = "", usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  return [text, usage.completion_tokens];
});

await call("POST /v1/completions", async () => {
  const answer = await client.completions.create({ ...common, prompt: "Once upon a time", max_tokens: 20 });
  return [answer.choices[0].text, answer.usage.completion_tokens];
});

await call("POST /v1/responses", async () => {
  const answer = await client.responses.create({ ...common, input: "What is TPOT?", max_output_tokens: 40 });
  return [answer.output_text, answer.usage.output_tokens];
});

if (embeddingServer) {
  await call("POST /v1/embeddings", async () => {
    const other = new OpenAI({ baseURL: `${embeddingServer}/v1`, apiKey: embeddingKey, maxRetries: 0 });
    const answer = await other.embeddings.create({ model, input: ["What is TTFT?"] });
    return [`a vector of ${answer.data[0].embedding.length} numbers`, 0];
  });
}

await call("POST /v1/chat/completions, refused", async () => {
  try {
    await client.chat.completions.create({ ...common, messages, max_tokens: 100_000 });
    return ["no error", 0];
  } catch (error) {
    if (!(error instanceof OpenAI.BadRequestError)) throw error;
    return [`${error.constructor.name}: ${error.message}`, 0];
  }
});
