package history

// VerifyBeside is Verify with so many partitions side by side.
var VerifyBeside = verify
