import assert from 'node:assert/strict';
import type { Stage } from './stage.ts';

// The part of github.com/openreports/reports-api v0.2.1 that a Report of ours meets.
const REPORTS = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: {
    name: 'reports.openreports.io',
    annotations: { 'api-approved.kubernetes.io': 'https://github.com/openreports/reports-api' },
  },
  spec: {
    group: 'openreports.io',
    scope: 'Namespaced',
    names: { kind: 'Report', plural: 'reports', singular: 'report', listKind: 'ReportList' },
    versions: [
      {
        name: 'v1alpha1',
        served: true,
        storage: true,
        schema: {
          openAPIV3Schema: {
            type: 'object',
            properties: {
              source: { type: 'string' },
              summary: { type: 'object', additionalProperties: { type: 'integer' } },
              results: {
                type: 'array',
                items: {
                  type: 'object',
                  required: ['policy'],
                  properties: {
                    policy: { type: 'string' },
                    rule: { type: 'string' },
                    message: { type: 'string' },
                    scored: { type: 'boolean' },
                    severity: { type: 'string', enum: ['critical', 'high', 'low', 'medium', 'info'] },
                    result: { type: 'string', enum: ['pass', 'fail', 'warn', 'error', 'skip'] },
                    timestamp: {
                      type: 'object',
                      required: ['nanos', 'seconds'],
                      properties: { nanos: { type: 'integer' }, seconds: { type: 'integer' } },
                    },
                    resources: {
                      type: 'array',
                      items: {
                        type: 'object',
                        properties: Object.fromEntries(
                          ['apiVersion', 'kind', 'name', 'namespace'].map((k) => [k, { type: 'string' }]),
                        ),
                      },
                    },
                  },
                },
              },
            },
          },
        },
      },
    ],
  },
};

/** Has the cluster know Reports of openreports.io. */
export async function installReports(stage: Stage): Promise<void> {
  const { status } = await stage.admin.request(
    'POST',
    '/apis/apiextensions.k8s.io/v1/customresourcedefinitions',
    REPORTS,
  );
  assert.equal(status, 201);
}
