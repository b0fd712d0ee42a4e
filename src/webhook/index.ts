/**
 * Takes AdmissionReviews over TLS, gives AdmissionReviews back. Translates only; `gate.admit` decides.
 * Refuses bodies that are too large or no review; any failure to decide is a "no" with its reason.
 */
export { addAuditEndpoint } from './audit.ts';
export { type Certificates, makeCertificates } from './certificates.ts';
export { type AdmissionScopes, createWebhook } from './webhook.ts';
