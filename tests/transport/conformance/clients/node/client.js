// The client program in Node: reads orders (orders.proto) and reports what @grpc/grpc-js makes of them.
// PROTO_PATH lists the folders with the proto of 2021 and those of google.rpc.
'use strict';

const readline = require('node:readline');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const { runApplication } = require('./application.js');

const UNLIMITED = -1;
const GZIP = 2;
const includeDirs = process.env.PROTO_PATH.split(':');
const google = loader.loadSync(['google/rpc/status.proto', 'google/rpc/error_details.proto'], { includeDirs });

const same = (bytes) => bytes;
const base64 = (value) => Buffer.from(value).toString('base64');
const channels = new Map();
const calls = new Map();

function tell(report) {
  process.stdout.write(JSON.stringify(report) + '\n');
}

function channel(address, call) {
  const options = { 'grpc.max_receive_message_length': UNLIMITED, 'grpc.use_local_subchannel_pool': 1 };
  if (call.gzip) options['grpc.default_compression_algorithm'] = GZIP;
  if (call.keepalive_ms) {
    options['grpc.keepalive_time_ms'] = call.keepalive_ms;
    options['grpc.keepalive_permit_without_calls'] = 1;
  }
  const key = JSON.stringify([address, call.connection]);
  if (!channels.has(key)) {
    channels.set(key, { address, client: new grpc.Client(address, grpc.credentials.createInsecure(), options) });
  }
  return channels.get(key).client;
}

function entries(metadata) {
  if (!metadata) return [];
  return Object.keys(metadata.getMap()).flatMap((key) =>
    metadata.get(key).map((value) => ({ key, value: base64(value) })));
}

function outcome(error) {
  if (!error) return { code: grpc.status.OK };
  if (error.code === undefined) throw error;
  const report = { code: error.code, message: error.details };
  const [details] = error.metadata.get('grpc-status-details-bin');
  if (details) {
    const [detail] = google['google.rpc.Status'].deserialize(details).details;
    const { reason, domain, metadata } = google['google.rpc.ErrorInfo'].deserialize(detail.value);
    report.refusal = { reason, domain, metadata };
  }
  return report;
}

function beginCall({ id, address, call }) {
  const metadata = new grpc.Metadata({ waitForReady: call.wait_for_ready });
  for (const { key, value } of call.metadata ?? []) {
    const bytes = Buffer.from(value, 'base64');
    metadata.add(key, key.endsWith('-bin') ? bytes : bytes.toString());
  }
  const options = call.timeout_ms ? { deadline: Date.now() + call.timeout_ms } : {};
  const report = { id };
  const begun = channel(address, call).makeUnaryRequest(
    call.method, same, same, Buffer.from(call.body ?? '', 'base64'), metadata, options, (error, body) => {
      Object.assign(report, outcome(error), body && { body: base64(body) });
    });
  begun.on('metadata', (initial) => { report.initial_metadata = entries(initial); });
  begun.on('status', (status) => {
    report.trailing_metadata = entries(status.metadata);
    calls.delete(id);
    setImmediate(() => tell(report)); // the answer's callback may still be to come
  });
  calls.set(id, begun);
}

function begin(order) {
  if (order.call) return beginCall(order);
  if (order.application) {
    const report = { id: order.id };
    return runApplication(order.address, order.application, report)
      .then(() => tell(report), (error) => tell({ ...report, ...outcome(error) }));
  }
  if (order.cancel) calls.get(order.cancel.id)?.cancel();
  if (order.close) {
    for (const [key, { address, client }] of channels) {
      if (address === order.address) {
        client.close();
        channels.delete(key);
      }
    }
  }
  return tell({ id: order.id });
}

readline.createInterface({ input: process.stdin })
  .on('line', (line) => begin(JSON.parse(line)))
  .on('close', () => process.exit(0));
