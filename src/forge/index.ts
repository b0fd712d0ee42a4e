/**
 * Takes a forge's address and a pull or merge request. Returns its reviews as stated by the forge, with the forge's own
 * answer. Refuses answers without the documented shape. A reviewer is identified only by the account number.
 */
export { defaultApiUrl, type Forge, type ForgeAddress, type ForgeRequest, fetchReviews } from './fetch-reviews.ts';
export { githubAppToken } from './github-app.ts';
