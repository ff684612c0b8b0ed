-- The tables of schema es, version 1. Owned by es_owner; applications touch none
-- of them, only the functions of the schema. Init makes the schema itself and the
-- roles, and runs these files as es_owner.

grant usage on schema es to es_writer, es_reader, es_view;

-- One row: which version of the schema this is, and what holds for all events.
-- Install writes undeclared and max_event, into es.admit as well.
create table es.meta (
  one          boolean     primary key default true check (one),
  version      int         not null,                             -- of the schema
  store        uuid        not null default gen_random_uuid(),   -- tells stores apart; views elsewhere remember it
  undeclared   boolean     not null default true,                -- accept types that are not declared
  max_event    int         not null default 1048576,             -- bytes of data and meta together
  snapshots    int         not null default 0,                   -- events folded that make a new snapshot; 0: none
  definitions  bytea,                                            -- hash of what Install installed last
  changed      timestamptz not null default now()
);

-- The only row two writers of a stream contend for. Half of a page is kept free,
-- so that a new version of a row stays on its page and no index is written.
-- Names compare by their bytes ("C"): faster, and no upgrade of a locale library
-- changes the order the indexes are in.
create table es.stream (
  stream  text        collate "C" primary key,
  version bigint      not null check (version >= 0),
  closed  timestamptz
) with (fillfactor = 50);

-- Append-only: triggers refuse UPDATE, DELETE and TRUNCATE, whoever asks.
create table es.event (
  id       uuid        primary key,                              -- chosen by the caller: appending it again changes nothing
  stream   text        collate "C" not null references es.stream,
  version  bigint      not null,                                 -- 1, 2, 3, … in the stream
  type     text        collate "C" not null,
  schema   int         not null default 1,
  data     jsonb       not null,
  meta     jsonb       not null default '{}',                    -- actor, correlation, causation, traceparent, …
  subjects text[]      not null default '{}',                    -- opaque ids of the people inside
  at       timestamptz not null default clock_timestamp(),
  unique (stream, version)
);
create index event_subjects on es.event using gin (subjects) where subjects <> '{}';

-- Commit order, written by the one reader of the slot. Positions are dense.
create table es.log (
  pos   bigint primary key,                                      -- 1, 2, 3, …
  event uuid   not null unique,
  lsn   pg_lsn not null,                                         -- start of the transaction's commit record
  tx    bigint not null                                          -- its id, as in the stream (32 bits)
);
create index log_tx on es.log (tx);

-- How far the reader has come; written in the transaction that writes es.log, and
-- before the slot is confirmed: a slot that is further was moved by another.
create table es.reader (
  one      boolean     primary key default true check (one),
  slot     text        not null,
  system   text        not null,                                 -- system identifier of the server
  timeline int         not null,
  lsn      pg_lsn      not null,                                 -- every commit before it is numbered
  at       timestamptz not null default now()
);

-- An UPDATE, DELETE or TRUNCATE of es.event that the WAL shows: somebody went
-- round the triggers.
create table es.alarm (
  id           bigint      generated always as identity primary key,
  lsn          pg_lsn      not null,
  tx           bigint      not null,
  operation    text        not null check (operation in ('update', 'delete', 'truncate')),
  event        uuid,                                             -- null for truncate
  at           timestamptz not null default now(),               -- of its commit
  acknowledged timestamptz,
  unique (lsn, operation, event)
);

-- Declared types of events, as configured.
create table es.declared (
  type       text  collate "C" primary key,
  schema     int   not null default 1,                           -- newest version of its fields: what an append without one means
  definition jsonb not null
);

-- One fold per category: es.state calls its function.
create table es.fold (
  category   text  primary key,
  hash       bytea not null,                                     -- of all that decides the state
  definition jsonb not null
);

-- Cache of states. Not in the WAL, in replicas or in backups; may be truncated.
create unlogged table es.snapshot (
  stream  text   not null,
  fold    text   not null,                                       -- category
  hash    bytea  not null,                                       -- of the fold that made it: another one does not see it
  version bigint not null,
  state   jsonb,
  primary key (stream, fold)
);

-- Builds of views. At most one build of a name is live: the one users read.
create table es.view (
  build      bigint      generated always as identity primary key,
  name       text        not null,
  hash       bytea       not null,                               -- of the definition
  definition jsonb       not null,
  mode       text        not null check (mode in ('inline', 'async')),
  database   text,                                               -- host:port/name of another Postgres; null: this one
  state      text        not null check (state in ('building', 'live', 'retired')),
  pos        bigint      not null default 0,                     -- every event up to it is applied, none after; of a live inline view: no meaning
  error      jsonb,                                              -- {event, type, statement, message}: why it stands still
  since      timestamptz not null default now()                  -- of state
);
create unique index view_live on es.view (name) where state = 'live';

-- Reactions and how far each has come.
create table es.reaction (
  name       text   primary key,
  hash       bytea  not null,
  definition jsonb  not null,
  pos        bigint not null,                                    -- every event up to it has been reacted to
  last       uuid,                                               -- what it appended last: its view has to see that before it reacts again
  error      jsonb                                               -- {event, type, query, message}: why it stands still
);

-- Outcome of appends that span two databases, written before either commits.
create table es.decision (
  gid text        primary key,                                   -- of the prepared transactions
  events uuid[]   not null default '{}',                         -- what it appends: es.wait waits until the row is gone
  at  timestamptz not null default now()
);
