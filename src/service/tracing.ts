import { hostname } from 'node:os';
import { CountersignError, messageOf, type Trace, type TraceAttributes } from '../model/index.ts';

type Tracing = { readonly trace: Trace; readonly close: () => Promise<void> };

const PREFIX = 'countersign.';

/**
 * Traces over OTLP/HTTP (JSON) to a collector. What it cannot take is dropped: nothing waits for a trace, and nothing is lost but it.
 * @param endpoint the collector's address, as far as `/v1/traces`
 */
export async function openTracing(endpoint: string, version: string): Promise<Tracing> {
  if (!/^https?:\/\/./.test(endpoint))
    throw new CountersignError('usage', `\`${endpoint.slice(0, 100)}\` is no address of a collector`, {
      hint: 'as `http://HOST:4318/v1/traces`',
    });
  // Read only where traces are wanted: they are as large as all the rest of the service.
  const { context, SpanStatusCode, trace } = await import('@opentelemetry/api');
  const { AsyncLocalStorageContextManager } = await import('@opentelemetry/context-async-hooks');
  const { OTLPTraceExporter } = await import('@opentelemetry/exporter-trace-otlp-http');
  const { resourceFromAttributes } = await import('@opentelemetry/resources');
  const { BatchSpanProcessor, TracerProvider } = await import('@opentelemetry/sdk-trace');
  const manager = new AsyncLocalStorageContextManager().enable();
  context.setGlobalContextManager(manager);
  const processor = new BatchSpanProcessor({ exporter: new OTLPTraceExporter({ url: endpoint, timeoutMillis: 5000 }) });
  const resource = resourceFromAttributes({ 'service.name': 'countersign', 'service.version': version, 'service.instance.id': hostname() });
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
      await provider.shutdown().catch(() => {}); // a collector that is away keeps nobody from stopping
      manager.disable();
      context.disable();
    },
  };
}

function prefixed(attributes: TraceAttributes): TraceAttributes {
  return Object.fromEntries(Object.entries(attributes).map(([key, value]) => [`${PREFIX}${key}`, value]));
}
