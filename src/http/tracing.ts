import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { hostname } from 'node:os';
import {
  addressText,
  CountersignError,
  messageOf,
  parseHttpAddress,
  type Trace,
  type TraceAttributes,
} from '../model/index.ts';

type Tracing = { readonly trace: Trace; readonly close: () => Promise<void> };

const PREFIX = 'countersign.';
const TIMEOUT_MS = 5000;

/**
 * Exports traces over OTLP/HTTP (JSON) to a collector. Traces it cannot accept are dropped: nothing waits for them.
 * @param endpoint the collector's address, including `/v1/traces`
 */
export async function openTracing(endpoint: string, version: string, timeoutMs = TIMEOUT_MS): Promise<Tracing> {
  const parsed = parseHttpAddress(endpoint);
  if (parsed.kind === 'refused')
    throw new CountersignError(
      'usage',
      `\`${endpoint.slice(0, 100)}\` is not the address of a collector: ${parsed.why}`,
      {
        hint: 'write it as `http://HOST:4318/v1/traces`',
      },
    );
  // Imported only if traces are wanted: these modules are as large as the rest of the service.
  const { context, SpanStatusCode, trace } = await import('@opentelemetry/api');
  const { AsyncLocalStorageContextManager } = await import('@opentelemetry/context-async-hooks');
  const { OTLPTraceExporter } = await import('@opentelemetry/exporter-trace-otlp-http');
  const { resourceFromAttributes } = await import('@opentelemetry/resources');
  const { BatchSpanProcessor, TracerProvider } = await import('@opentelemetry/sdk-trace');
  const manager = new AsyncLocalStorageContextManager().enable();
  context.setGlobalContextManager(manager);
  const agent = briefAgent(parsed.value.scheme, timeoutMs);
  const exporter = new OTLPTraceExporter({
    url: addressText(parsed.value),
    timeoutMillis: timeoutMs,
    httpAgentOptions: () => agent,
  });
  const processor = new BatchSpanProcessor({ exporter, exportTimeoutMillis: 2 * timeoutMs });
  const resource = resourceFromAttributes({
    'service.name': 'countersign',
    'service.version': version,
    'service.instance.id': hostname(),
  });
  const provider = new TracerProvider({ resource, spanProcessors: [processor] });
  const tracer = provider.getTracer('countersign', version);
  return {
    trace: (name, attributes, step) => {
      const span = tracer.startSpan(name, { attributes: prefixed(attributes) });
      return context.with(trace.setSpan(context.active(), span), async () => {
        try {
          return await step((more) => void span.setAttributes(prefixed(more)));
        } catch (thrown) {
          span.setStatus({ code: SpanStatusCode.ERROR, message: messageOf(thrown) });
          if (thrown instanceof CountersignError) span.setAttributes({ 'error.type': thrown.code });
          throw thrown;
        } finally {
          span.end();
        }
      });
    },
    close: async () => {
      await provider.shutdown().catch(() => {}); // an unreachable collector must not delay shutdown
      agent.destroy();
      manager.disable();
      context.disable();
    },
  };
}

// The exporter gives up on an answer that trickles in, but leaves the connection open, so connections get a time limit
// here.
function briefAgent(scheme: 'http' | 'https', timeoutMs: number): HttpAgent {
  const agent = scheme === 'https' ? new HttpsAgent({ keepAlive: false }) : new HttpAgent({ keepAlive: false });
  const connect = agent.createConnection.bind(agent);
  agent.createConnection = (options, done) => {
    const socket = connect(options, done);
    const end = setTimeout(() => socket?.destroy(), 2 * timeoutMs);
    socket?.on('close', () => clearTimeout(end));
    return socket;
  };
  return agent;
}

function prefixed(attributes: TraceAttributes): TraceAttributes {
  return Object.fromEntries(Object.entries(attributes).map(([key, value]) => [`${PREFIX}${key}`, value]));
}
