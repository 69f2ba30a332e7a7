"""How the ledger's tables came to be; run by the ledger itself when it opens."""
