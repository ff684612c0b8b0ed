-- Reading: streams, the log, and waiting for a view.

-- es.version is the version of the schema.
create function es.version() returns int language sql stable
security definer set search_path = pg_catalog, pg_temp as $$ select version from es.meta $$;

-- es.head is the greatest position of the log, 0 while it is empty.
create function es.head() returns bigint language sql stable
security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$ select coalesce(max(pos), 0) from es.log $$;

-- es.read gives the events of a stream, from version to version. pos, tx and lsn are
-- null until an event is numbered. Positions are looked up event by event, whatever
-- the planner thinks of the tables' sizes; the same below (see es.append).
create function es.read(stream text, from_version bigint default 1, to_version bigint default null)
returns table (id uuid, stream text, version bigint, type text, schema int, data jsonb, meta jsonb, subjects text[],
               at timestamptz, pos bigint, tx bigint, lsn pg_lsn) language sql stable
security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
  select e.id, e.stream, e.version, e.type, e.schema, e.data, e.meta, e.subjects, e.at, l.pos, l.tx, l.lsn
    from es.event e left join lateral (select * from es.log n where n.event = e.id offset 0) l on true
   where e.stream = $1 and e.version >= coalesce($2, 1) and e.version <= coalesce($3, 9223372036854775807)
   order by e.version
$$;

-- es.read_log gives the numbered events behind a position, at most max_events; where
-- types is given, those of these types.
create function es.read_log(after bigint, max_events int, types text[] default null)
returns table (id uuid, stream text, version bigint, type text, schema int, data jsonb, meta jsonb, subjects text[],
               at timestamptz, pos bigint, tx bigint, lsn pg_lsn) language sql stable
security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
  select e.id, e.stream, e.version, e.type, e.schema, e.data, e.meta, e.subjects, e.at, l.pos, l.tx, l.lsn
    from es.log l cross join lateral (select * from es.event s where s.id = l.event offset 0) e
   where l.pos > $1 and ($3 is null or e.type = any ($3))
   order by l.pos limit $2
$$;

-- es.progress says whether a view has seen an event, and the event's position
-- (null: not numbered yet). ES404 where it does not know the view or the event,
-- ES425 where the event is of a transaction that is still open: this one.
create function es.progress(view text, token uuid) returns table (seen boolean, pos bigint) language plpgsql
security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare
  ev  record;
  v   record;
  own bigint := pg_current_xact_id_if_assigned()::text::bigint;
  far bigint;
begin
  select e.id, e.xmin::text::bigint as xmin, l.pos into ev
    from es.event e left join es.log l on l.event = e.id where e.id = token;
  if not found then
    raise exception 'event % is not stored', coalesce(token::text, 'null') using errcode = 'ES404';
  end if;
  if ev.pos is null and own is not null then
    -- An event that is visible while its transaction is in progress is our own,
    -- of a savepoint perhaps. xmin is the lower half of its transaction's id.
    far := (ev.xmin - own) & 4294967295;
    if far >= 2147483648 then far := far - 4294967296; end if;
    if own + far > 0 and pg_xact_status((own + far)::text::xid8) = 'in progress' then
      raise exception 'event % is not committed: wait after the commit', token using errcode = 'ES425';
    end if;
  end if;
  if view = '' then
    return query select ev.pos is not null, ev.pos;
    return;
  end if;
  select * into v from es.view w where w.name = view and w.state <> 'retired' order by w.state = 'live' desc limit 1;
  if not found then
    raise exception 'there is no view %', to_json(view) using errcode = 'ES404';
  end if;
  seen := case
    when v.state <> 'live' then false
    when v.mode = 'async' then coalesce(v.pos >= ev.pos, false)
    when v.database is null then true
    -- inline in another database: committed there when the decision is gone
    else not exists (select from es.decision d where token = any (d.events)) end;
  pos := ev.pos;
  return next;
end $$;

-- es.wait returns when a view has seen an event, with the event's position; of an
-- inline view that may be null. View '': when the event is numbered. ES504 when the
-- time is up.
create function es.wait(view text, token uuid, timeout interval default '10 seconds') returns bigint language plpgsql
security definer set search_path = pg_catalog, pg_temp as $$
declare
  p     record;
  until timestamptz := clock_timestamp() + timeout;
  pause float8 := 0.001;
begin
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    raise exception 'a transaction that is % sees nothing new: wait in one that is read committed', current_setting('transaction_isolation') using errcode = 'ES425';
  end if;
  loop
    select * into p from es.progress(view, token);
    if p.seen then
      return p.pos;
    elsif until is null or clock_timestamp() >= until then
      raise exception 'view % has not seen event % in time', to_json(view), token using errcode = 'ES504';
    end if;
    perform pg_sleep(least(pause, extract(epoch from until - clock_timestamp())));
    pause := least(pause * 2, 0.025);
  end loop;
end $$;

grant execute on function es.version() to es_writer, es_reader;
grant execute on function es.head() to es_writer, es_reader;
grant execute on function es.read(text, bigint, bigint) to es_writer, es_reader;
grant execute on function es.read_log(bigint, int, text[]) to es_writer, es_reader;
grant execute on function es.progress(text, uuid) to es_writer, es_reader;
grant execute on function es.wait(text, uuid, interval) to es_writer, es_reader;
