// Package cdctest is the test kit: real PostgreSQL servers, brokers that speak
// Kafka's protocol, a reader that shares no code with ours, a proxy that breaks
// connections, and the built binary as a process. Only tests and benchmarks
// import it.
//
// Every package that uses it has
//
//	func TestMain(m *testing.M) { cdctest.Main(m) }
//
// which ends what the tests share and fails on a goroutine left over. Without it
// PrivateKafka does not work: kfake then runs in the test binary, started again.
//
// # PostgreSQL
//
//	db := cdctest.Database(t)                // fresh, on a server the binary shares
//	db.Exec(t, "CREATE TABLE a(id int primary key)", "INSERT INTO a VALUES (1)")
//	n := db.Value(t, "SELECT count(*) FROM a") // text form
//	rows := db.Query(t, "SELECT * FROM a")     // text form, NULL is "NULL"
//	conn := db.Conn(t)                       // *pgx.Conn, closed with the test
//	run(db.URL)                              // superuser, no password, no TLS
//
// The database goes with the test, together with its connections, prepared
// transactions and slots. A slot that is still there fails the test, unless
// db.KeepSlot(name) declared it. Slots are the server's, not the database's: give
// them names that no other test of the binary uses, for instance with db.Name in
// it. While a prepared transaction is open no slot can be created on the server.
//
//	pg := cdctest.PrivatePostgres(t, map[string]string{"max_slot_wal_keep_size": "1MB"})
//	db := pg.Database(t)
//	pg.Kill()                                // SIGKILL, backends too
//	err := pg.Stop(ctx, "fast")              // or smart, immediate
//	err = pg.Restart(ctx)                    // same port, same data
//
// # Kafka
//
//	k := cdctest.Kafka(t)                    // shared by the binary
//	topic := k.Prefix + "students"           // unique to the test; use it for groups too
//	k.CreateTopic(t, topic, 6, map[string]string{"cleanup.policy": "compact"})
//	records := cdctest.Read(t, k.Brokers, topic)        // read_committed, to the end
//	records = cdctest.WaitRecords(t, k.Brokers, topic, cdctest.AtLeast(3))
//	state := cdctest.Fold(records)           // latest value per key
//
//	k := cdctest.PrivateKafka(t)             // a process of its own
//	k.Kill(t); k.Start(t)                    // SIGKILL; same port, same data
//	k, proxy := cdctest.ProxiedKafka(t)      // clients are led through the proxy
//	k, lossy := cdctest.LossyKafka(t)        // loses chosen requests, or their answers
//	lossy.LoseAnswers(kmsg.EndTxn, 0, 2)     // carried out; LoseRequests: never arrived
//	q := cdctest.KafkaQuorum(t)              // three nodes of Apache Kafka, else a skip
//	q.Kill(t, q.Leader(t, topic, 0))         // Stop, Start, Freeze, Thaw; Whole, Without
//	k := cdctest.RestrictedKafka(t)          // Apache Kafka with an authorizer, else a skip
//	k.Allow(t, right); k.Revoke(t, right)    // of the user that comes to k.Address
//
// # Faults
//
//	p := cdctest.NewProxy(t, "127.0.0.1:5432") // connect to p.Addr
//	p.Cut(); p.Refuse(); p.Stall(); p.Resume(); p.Delay(d); p.HalfOpen()
//	p.DropAnswers(1)                         // carried out, answer lost, connection cut
//	p.Heal()
//	f := cdctest.NewFailover(t, "127.0.0.1:5432") // f.Addr is a name; ServeNames in TestMain
//	f.Leave(); f.Arrive()                    // no address; another one
//	k, f := cdctest.MovingKafka(t)           // a broker behind one
//
// # Processes of the test's own
//
//	func TestMain(m *testing.M) { cdctest.RunVictim(child); cdctest.Main(m) }
//	v := cdctest.Spawn(t, config)            // child(ctx, config) in a process; its Point says where it is hit
//	v.Killed(t, point); v.Frozen(t); v.Kill(); v.Stop()
//
// # The binary
//
//	cdc := cdctest.StartCDC(t, yaml)         // cdc run, output printed if the test fails
//	cdc.WaitReady(t, adminAddr)
//	line := cdc.WaitOutput(t, "streaming")
//	cdc.Kill9()
//	cdc.Stop(t)                              // SIGTERM, must exit with 0
//	out, errs, code := cdctest.RunCDC(t, dir, "verify", "--config", cdc.Config)
//
// cdctest.FreePort(t) is for addresses that stand in a configuration.
//
// # Environment
//
//	CDC_TEST_PG     major version, 14 to 18; empty: the newest installed, else fetched
//	CDC_TEST_KAFKA  3.9.1 or 4.4.0: Apache Kafka, needs Java 17; empty: kfake
//	CDC_CACHE       where fetched programs are kept
//	CDC_MAVEN_URL   a mirror of Maven Central
//
// A test that needs a program fails when it cannot be had; it never skips.
package cdctest
