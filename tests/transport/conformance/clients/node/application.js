// What an application of 2021 does with an agent, in Node.
'use strict';

const { setTimeout: sleep } = require('node:timers/promises');
const { promisify } = require('node:util');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const DEADLINE_MS = 30_000;
const POLL_MS = 20;

// Adds what it saw to the report; rejects with the error of its last call, or of the one that failed before it.
async function runApplication(address, { url, model, capture_id }, report) {
  const loaded = loader.loadSync('edge_agent_2021.proto', {
    includeDirs: process.env.PROTO_PATH.split(':'), keepCase: true, enums: String, longs: Number,
  });
  const { Agent } = grpc.loadPackageDefinition(loaded).AWS.SageMaker.Edge;
  const agent = new Agent(address, grpc.credentials.createInsecure());
  const call = (method, request) =>
    promisify(agent[method]).call(agent, request, { deadline: Date.now() + DEADLINE_MS });
  try {
    const described = (await call('LoadModel', { url, name: model })).model;
    report.models = (await call('ListModels', {})).models.map(({ name }) => name);

    const input = {
      tensor_metadata: described.input_tensor_metadatas[0],
      byte_data: Buffer.from(Float32Array.of(1, 2, 3, 4).buffer),
    };
    const output_tensors = (await call('Predict', { name: model, tensors: [input] })).tensors;
    const { byte_data } = output_tensors[0];
    report.outputs = Array.from({ length: byte_data.length / 4 }, (_, index) => byte_data.readFloatLE(4 * index));

    await call('CaptureData', {
      model_name: model,
      capture_id,
      inference_timestamp: { seconds: Math.floor(Date.now() / 1000) },
      input_tensors: [input],
      output_tensors,
    });
    let status = 'IN_PROGRESS';
    while (status === 'IN_PROGRESS') {
      await sleep(POLL_MS);
      ({ status } = await call('GetCaptureDataStatus', { capture_id }));
    }
    if (status !== 'SUCCESS') throw new Error(`the capture was not delivered: ${status}`);

    await call('UnLoadModel', { name: model });
    await call('Predict', { name: model, tensors: [input] });
  } finally {
    agent.close();
  }
}

module.exports = { runApplication };
