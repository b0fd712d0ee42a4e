import { version } from '../config/index.ts';
import { refText } from '../model/index.ts';
import { type Findings, fingerprint, ruleOf } from './model.ts';

const LEVELS: Record<string, string> = { critical: '9.5', high: '8.0', medium: '5.5', low: '3.0' };

export function sarif(found: Findings): object {
  const ids = [...new Set(found.findings.map(ruleOf))].sort();
  return {
    $schema: 'https://json.schemastore.org/sarif-2.1.0.json',
    version: '2.1.0',
    runs: [
      {
        tool: {
          driver: {
            name: 'countersign',
            version: version(),
            rules: ids.map((id) => {
              const info = found.rules.get(id);
              const severity = info?.severity ?? found.findings.find((f) => ruleOf(f) === id)?.severity;
              return {
                id,
                shortDescription: { text: info?.title ?? id },
                ...(info?.description === undefined ? {} : { fullDescription: { text: info.description } }),
                ...(info?.remediation === undefined ? {} : { help: { text: info.remediation } }),
                properties: {
                  tags: info?.controls ?? [],
                  ...(severity === undefined ? {} : { 'security-severity': LEVELS[severity] ?? '5.0' }),
                },
              };
            }),
          },
        },
        results: found.findings.map((f) => ({
          ruleId: ruleOf(f),
          ruleIndex: ids.indexOf(ruleOf(f)),
          level: f.level,
          message: { text: f.hint === undefined ? f.message : `${f.message}. Fix: ${f.hint}` },
          locations: [
            {
              physicalLocation: {
                artifactLocation: {
                  uri: (f.source?.file ?? '.').split('/').map(encodeURIComponent).join('/'),
                  uriBaseId: '%SRCROOT%',
                },
                region: {
                  startLine: f.source?.line ?? 1,
                  ...(f.source?.column === undefined ? {} : { startColumn: f.source.column }),
                },
              },
              ...(f.object === undefined
                ? {}
                : { logicalLocations: [{ fullyQualifiedName: refText(f.object), kind: 'resource' }] }),
            },
          ],
          partialFingerprints: { 'countersign/v1': fingerprint(f) },
          ...(f.state === undefined ? {} : { baselineState: f.state === 'new' ? 'new' : 'unchanged' }),
          ...(f.waived === undefined
            ? {}
            : {
                suppressions: [
                  {
                    kind: 'external',
                    status: 'accepted',
                    justification:
                      `${f.waived.reason} (${f.waived.ticket}, ` +
                      `waived by ${f.waived.approver} until ${f.waived.until})`,
                  },
                ],
              }),
        })),
      },
    ],
  };
}
